/**
 * A process that uses a folder of blobs: `write FOLDER NAME COUNT LENGTH [PARTS]` puts blobs, PARTS (2) at a time, and
 * prints the keys when a flush has acknowledged them; `hold FOLDER MS` prints a line and stands still in the middle of a
 * write; `read FOLDER KEY LENGTH` prints whether the blob is there and right; `exit FOLDER...` ends itself while a thread
 * for each folder writes, and prints what they print.
 */
import { writeSync } from 'node:fs'
import { parentPort, workerData } from 'node:worker_threads'
import { open } from 'lmdb'
import { openTiers } from '../open-tiers.ts'
import { blobOf, bodyOf } from './blobs.ts'
import { startThread } from './disk-thread.ts'

const [mode, path = '', name = '', ...numbers] = (workerData ?? process.argv.slice(2)) as string[]
const say = (line: string): void => {
  if (parentPort) parentPort.postMessage(line)
  else writeSync(1, `${line}\n`) // at once: the process may be killed right after
}

if (mode === 'exit') {
  const folders = [path, name, ...numbers].filter((folder) => folder !== '')
  const threads = folders.map((folder) => startThread(['write', folder, 'a', '100000', '100', '400']))
  await Promise.all(
    threads.map((thread) => new Promise((resolve) => thread.on('message', (line) => resolve(say(line as string))))),
  )
  await new Promise((resolve) => setTimeout(resolve, 50 * Math.random()))
  process.exit()
}

const store = await openTiers([{ kind: 'disk', path }])

if (mode === 'write') {
  const [count = 0, length = 0, parts = 2] = numbers.map(Number)
  for (let i = 0; i < count; i++) {
    const keys = Array.from({ length: parts }, (_, part) => `${name}-${i}-${part}`)
    store.put(keys.map((key) => blobOf(key, length)))
    if ((await store.flush()).length === 0) say(keys.join('\n'))
  }
} else if (mode === 'hold') {
  const environment = open({ path })
  environment.transactionSync(() => {
    say('holding')
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, Number(name))
  })
  await environment.close()
} else {
  const [body] = await store.get([name])
  say(body && Buffer.compare(body, bodyOf(name, Number(numbers[0]))) === 0 ? 'right' : 'missing')
}
await store.close()

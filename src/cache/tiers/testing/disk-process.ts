/**
 * A process that uses a folder of blobs: `write FOLDER NAME COUNT LENGTH [PARTS]` puts blobs, PARTS (2) at a time, and
 * prints the keys when a flush has acknowledged them; `hold FOLDER MS` prints a line and stands still in the middle of a
 * write; `read FOLDER KEY LENGTH` prints whether the blob is there and right.
 */
import { writeSync } from 'node:fs'
import { parentPort, workerData } from 'node:worker_threads'
import { open } from 'lmdb'
import { openTiers } from '../open-tiers.ts'
import { blobOf, bodyOf } from './blobs.ts'

const [mode, path = '', name = '', ...numbers] = (workerData ?? process.argv.slice(2)) as string[]
const say = (line: string): void => {
  if (parentPort) parentPort.postMessage(line)
  else writeSync(1, `${line}\n`) // at once: the process may be killed right after
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

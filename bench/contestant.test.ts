/** Processes that end before they answer; bench/attention and bench/generate have those that do. */
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { askOnce } from './contestant.ts'

let folder = ''
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'kvasir-contestant-'))
})
afterAll(() => rm(folder, { recursive: true }))

async function askWorker(script: string) {
  await writeFile(join(folder, 'worker.mjs'), script)
  return await askOnce(pathToFileURL(join(folder, 'run.mjs')).href, {})
}

test('a process that ends is left out, with what it said last', async () => {
  const skipped = { kind: 'skipped', reason: 'its process ended with exit code 3: no room' }
  expect(await askWorker("console.error('no room'); process.exitCode = 3; process.disconnect()")).toEqual(skipped)
})

test('a process that Ctrl-C ended before it listened is an interrupt, and nobody who takes no part', async () => {
  await expect(askWorker("process.kill(process.pid, 'SIGINT')")).rejects.toMatchObject({ code: 'aborted' })
})

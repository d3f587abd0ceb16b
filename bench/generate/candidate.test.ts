/** Sequences that were filled by hand are as long as they should be, and looked at. */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test, vi } from 'vitest'
import type { OpenModel, OpenOptions } from './candidate.ts'
import { prepareModel } from './models.ts'
import { openOurs } from './ours.ts'
import { openStock } from './stock.ts'

const folder = mkdtempSync(join(tmpdir(), 'kvasir-bench-test-'))
let options: OpenOptions
beforeAll(async () => {
  vi.stubEnv('KVASIR_CACHE', folder)
  options = { ...(await prepareModel('tiny', 'f32')), dtype: 'fp32', threads: 1, window: 64, room: 1600 }
})
afterAll(() => {
  vi.unstubAllEnvs()
  rmSync(folder, { recursive: true, force: true })
})

const openers: Readonly<Record<string, () => Promise<OpenModel>>> = {
  'ours with all tokens': () => openOurs('full', options),
  'ours with a window': () => openOurs('window', options),
  onnxruntime: () => openStock(options),
  'onnxruntime in chunks': () => openStock(options, { chunkSize: 7 }),
}
for (const [name, open] of Object.entries(openers)) {
  test(name, async () => {
    const model = await open()
    const alone = (await model.feed([3])).slice()
    expect(alone.length).toBe(512)
    await model.fill(1500)
    expect(model.held()).toBe(1500)
    const behind = (await model.feed([3])).slice()
    expect(model.held()).toBe(1501)
    expect(behind.every(Number.isFinite)).toBe(true)
    expect(behind).not.toEqual(alone)
    await model.fill(0)
    expect(await model.feed([3])).toEqual(alone)
    await model.feed(Array.from({ length: 20 }, (_, i) => i))
    expect(model.held()).toBe(21)
  })
}

test('chunks are the same prompt', async () => {
  const prompt = Array.from({ length: 20 }, (_, i) => i)
  const whole = await (await openStock(options)).feed(prompt)
  const parts = await (await openStock(options, { chunkSize: 7 })).feed(prompt)
  const range = Math.max(...whole) - Math.min(...whole)
  expect(Math.max(...whole.map((value, i) => Math.abs(value - parts[i]!)))).toBeLessThan(1e-5 * range)
})

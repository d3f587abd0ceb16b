/** A checkpoint written as an ONNX folder and read back: the takeover gives what the checkpoint itself gives. */
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { exportOnnx } from '../onnx/export/index.ts'
import { decoderTypes, writeDecoderCheckpoint } from '../onnx/testing/decoder-checkpoint.ts'
import { loadModel } from './load-model.ts'

let root = ''
const folders: string[] = []
beforeAll(async () => {
  root = await mkdtemp(join(tmpdir(), 'kvasir-round-trip-'))
})
afterAll(async () => {
  for (const folder of [root, ...folders]) await rm(folder, { recursive: true })
})

const tokens = Array.from({ length: 70 }, (_, i) => (i * 89 + 7) % 256)

async function logitsOf(folder: string): Promise<Float32Array> {
  const model = await loadModel(folder, { threads: 1, chunkSize: 32 })
  const cache = model.createCache()
  const { data } = await model.forward([{ cache, tokens, logitsOf: tokens.map((_, i) => i) }])
  cache.dispose()
  await model.dispose()
  return data as Float32Array
}

describe('an exported checkpoint, taken over', () => {
  it.each(decoderTypes)('has the logits of the checkpoint: %s', async (type) => {
    const { folder } = await writeDecoderCheckpoint(type)
    folders.push(folder)
    const output = join(root, type)
    // Weights in the graph and in several files beside it.
    await exportOnnx(folder, output, { maxInlineBytes: 0, maxFileBytes: 1 << 16 })
    const [expected, actual] = [await logitsOf(folder), await logitsOf(output)]
    const range = Math.max(...expected) - Math.min(...expected)
    const worst = expected.reduce((most, value, i) => {
      const difference = Math.abs(value - actual[i]!)
      return difference <= most ? most : Number.isNaN(difference) ? Number.POSITIVE_INFINITY : difference
    }, 0)
    expect(worst / range).toBeLessThanOrEqual(1e-5)
  })
})

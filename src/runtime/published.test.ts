import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { OnnxModel } from '../onnx/index.ts'
import { encodeModel } from '../onnx/index.ts'
import { writeSettings } from '../onnx/testing/checkpoint-files.ts'
import { createDecoder, styleNames } from '../onnx/testing/published/styles.ts'
import { smallDecoder } from '../onnx/testing/published/writer.ts'
import { loadModel } from './load-model.ts'
import { UncutDecoder } from './testing/uncut.ts'

let root = ''
beforeAll(async () => {
  root = await mkdtemp(join(tmpdir(), 'kvasir-published-'))
})
afterAll(() => rm(root, { recursive: true }))

let count = 0

/** A folder with one `.onnx` file and what belongs to it; returns the folder and the file. */
async function writeFolder(model: OnnxModel, name = 'onnx/model.onnx'): Promise<{ folder: string; file: string }> {
  const folder = join(root, String(count++))
  const file = join(folder, name)
  await mkdir(dirname(file), { recursive: true })
  await writeFile(file, encodeModel(model))
  await writeSettings(folder, { model_type: 'test', rope_theta: smallDecoder.theta })
  return { folder, file }
}

const tokensOf = (length: number, seed = 7): number[] =>
  Array.from({ length }, (_, i) => (i * i * 31 + seed * 17 + i) % 256)

/** Largest difference over the range of the expected numbers. */
function deviation(actual: Float32Array, expected: Float32Array): number {
  let [least, most, worst] = [Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY, 0]
  for (const [i, value] of expected.entries()) {
    least = Math.min(least, value)
    most = Math.max(most, value)
    const difference = Math.abs(value - actual[i]!)
    if (Number.isNaN(difference)) return difference
    worst = Math.max(worst, difference)
  }
  expect(actual.length).toBe(expected.length)
  return worst / (most - least)
}

const prompt = 21
const steps = 64

describe('a published decoder, cut', () => {
  it.each(styleNames)('gives the logits of the uncut graph, token by token: %s', async (style) => {
    const { folder, file } = await writeFolder(createDecoder(style))
    const tokens = tokensOf(prompt + steps)
    const uncut = await UncutDecoder.open(file)
    const expected = await uncut.logits(tokens, prompt)
    await uncut.release()
    const model = await loadModel(folder, { threads: 1 })
    const cache = model.createCache()
    const first = await model.forward([
      { cache, tokens: tokens.slice(0, prompt), logitsOf: Array.from({ length: prompt }, (_, i) => i) },
    ])
    const actual = new Float32Array(expected.length)
    actual.set(first.data as Float32Array)
    for (let t = prompt; t < tokens.length; t++) {
      const { data } = await model.forward([{ cache, tokens: [tokens[t]!] }])
      actual.set(data as Float32Array, t * model.vocabSize)
    }
    expect(deviation(actual, expected)).toBeLessThanOrEqual(1e-4)
    cache.dispose()
    await model.dispose()
  })
})

/** Folders of published decoders for tests, and how far logits are from others. */
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { afterAll, beforeAll } from 'vitest'
import { encodeModel, type OnnxModel } from '../../onnx/index.ts'
import { writeSettings } from '../../onnx/testing/checkpoint-files.ts'
import { smallDecoder } from '../../onnx/testing/published/writer.ts'
import type { CausalLM, LoadOptions } from '../contract.ts'
import { loadModel } from '../load-model.ts'
import { UncutDecoder } from './uncut.ts'

let count = 0

/** A folder with one `.onnx` file and what belongs to it; returns the folder and the file. */
export async function writeFolder(
  root: string,
  model: OnnxModel,
  name = 'onnx/model.onnx',
): Promise<{ folder: string; file: string }> {
  const folder = join(root, String(count++))
  const file = join(folder, name)
  await mkdir(dirname(file), { recursive: true })
  await writeFile(file, encodeModel(model))
  await writeSettings(folder, { model_type: 'test', rope_theta: smallDecoder.theta })
  return { folder, file }
}

/** `writeFolder` into a folder that is there while the tests of a file run. */
export function temporaryFolders(): (model: OnnxModel, name?: string) => ReturnType<typeof writeFolder> {
  let root = ''
  beforeAll(async () => {
    root = await mkdtemp(join(tmpdir(), 'kvasir-published-'))
  })
  afterAll(() => rm(root, { recursive: true }))
  return (model, name) => writeFolder(root, model, name)
}

export const tokensOf = (length: number, seed = 7): number[] =>
  Array.from({ length }, (_, i) => (i * i * 31 + seed * 17 + i) % 256)

/** Largest difference over the range of the expected numbers; NaN where one is NaN or lengths differ. */
export function deviation(actual: Float32Array, expected: Float32Array): number {
  if (actual.length !== expected.length) return Number.NaN
  let [least, most, worst] = [Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY, 0]
  for (const [i, value] of expected.entries()) {
    least = Math.min(least, value)
    most = Math.max(most, value)
    worst = Math.max(worst, Math.abs(value - actual[i]!))
  }
  return worst / (most - least)
}

/** Logits of a sequence through the cut: the prompt in one piece, the rest token by token. */
export async function cutLogits(
  model: CausalLM,
  tokens: readonly number[],
  first: number,
  chosen = {},
): Promise<Float32Array> {
  const cache = model.createCache(chosen)
  const all = new Float32Array(tokens.length * model.vocabSize)
  for (let done = 0; done < tokens.length; ) {
    const part = tokens.slice(done, done === 0 ? first : done + 1)
    const { data } = await model.forward([{ cache, tokens: part, logitsOf: part.map((_, i) => i) }])
    all.set(data as Float32Array, done * model.vocabSize)
    done += part.length
  }
  cache.dispose()
  return all
}

/** How far the last logits of texts in one batch are at most from those of each alone, as `deviation` has it. */
export async function batchDeviation(model: CausalLM, lengths: readonly number[]): Promise<number> {
  const texts = lengths.map((length, i) => tokensOf(length, i))
  const { data } = await model.forward(texts.map((text) => ({ cache: model.createCache(), tokens: text })))
  const together = data as Float32Array
  const deviations = texts.map(async (text, i) => {
    const alone = (await cutLogits(model, text, text.length)).slice(-model.vocabSize)
    return deviation(together.subarray(i * model.vocabSize, (i + 1) * model.vocabSize), alone)
  })
  return Math.max(...(await Promise.all(deviations)))
}

export async function uncutLogits(file: string, tokens: readonly number[], first: number): Promise<Float32Array> {
  const uncut = await UncutDecoder.open(file)
  try {
    return await uncut.logits(tokens, first)
  } finally {
    await uncut.release()
  }
}

export async function withModel<T>(
  folder: string,
  options: LoadOptions,
  use: (model: CausalLM) => Promise<T>,
): Promise<T> {
  const model = await loadModel(folder, { threads: 1, ...options })
  try {
    return await use(model)
  } finally {
    await model.dispose()
  }
}

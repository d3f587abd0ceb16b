import { mkdtemp, readdir, readFile, rm, symlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { backends } from '../kernels/backends.ts'
import { backendNames } from '../kernels/index.ts'
import {
  type DogeCheckpoint,
  type DogeCheckpointOptions,
  writeDogeCheckpoint,
} from '../onnx/testing/doge-checkpoint.ts'
import { dogeLogits } from '../onnx/testing/doge-reference.ts'
import type { CausalLM, LoadOptions } from './contract.ts'
import { loadModel } from './load-model.ts'

const opened: { model: CausalLM; folder: string }[] = []
afterAll(async () => {
  for (const { model, folder } of opened) {
    await model.dispose()
    await rm(folder, { recursive: true })
  }
})

async function load(options: DogeCheckpointOptions = {}, loadOptions: LoadOptions = {}) {
  const checkpoint = await writeDogeCheckpoint(options)
  const model = await loadModel(checkpoint.folder, { threads: 1, ...loadOptions })
  opened.push({ model, folder: checkpoint.folder })
  return { checkpoint, model }
}

const text = Array.from({ length: 40 }, (_, i) => (i * 89 + 7) % 256)

/** Largest difference of the logits after each token to the f64 reference. */
async function worstError(model: CausalLM, checkpoint: DogeCheckpoint, tokens = text): Promise<number> {
  const cache = model.createCache()
  const logitsOf = tokens.map((_, i) => i)
  const { data, dims } = await model.forward([{ cache, tokens, logitsOf }])
  expect(dims).toEqual([tokens.length, checkpoint.sizes.vocab])
  const expected = dogeLogits(checkpoint, tokens).flat()
  return Math.max(...expected.map((value, i) => difference((data as Float32Array)[i]!, value)))
}

/** NaN counts as infinitely wrong. */
function difference(a: number, b: number): number {
  const distance = Math.abs(a - b)
  return Number.isNaN(distance) ? Number.POSITIVE_INFINITY : distance
}

const cases: Record<string, DogeCheckpointOptions> = {
  'grouped heads': {},
  'one KV head': { heads: 4, kvHeads: 1 },
  'as many KV heads as heads': { heads: 3, kvHeads: 3, hidden: 24 },
  'a head dim that is not hidden / heads': { headDim: 20 },
  'one layer': { layers: 1 },
  'five layers': { layers: 5 },
  'a window of one': { window: 1 },
  'a window that nothing leaves': { window: 64 },
  'no biases': { attentionBias: false },
  'biases everywhere': { mlpBias: true },
  'an lm_head of its own': { tied: false },
  'importance without exp': { exponential: false },
  'f16 weights': { dtype: 'F16' },
  'bf16 weights': { dtype: 'BF16' },
  'three shards': { shards: 3 },
  'f16 shards with an lm_head': { shards: 2, dtype: 'F16', tied: false },
}

describe('logits equal the f64 reference', () => {
  for (const [name, options] of Object.entries(cases)) {
    it(name, async () => {
      const { checkpoint, model } = await load(options)
      expect(await worstError(model, checkpoint)).toBeLessThan(1e-4)
    })
  }

  it('read in chunks of any size', async () => {
    for (const chunkSize of [1, 7, 39, 40]) {
      const { checkpoint, model } = await load({}, { chunkSize })
      expect(await worstError(model, checkpoint)).toBeLessThan(1e-4)
    }
  })

  it('for several sequences in one flat list, mixed with one token of a third', async () => {
    const { checkpoint, model } = await load({}, { chunkSize: 16 })
    const parts = [text.slice(0, 11), text.slice(5, 30), text.slice(20, 21)]
    const caches = parts.map(() => model.createCache())
    await model.prefill(caches[2]!, text.slice(0, 20))
    const { data } = await model.forward([
      { cache: caches[0]!, tokens: parts[0]!, logitsOf: [10, 3] },
      { cache: caches[1]!, tokens: Int32Array.from(parts[1]!) },
      { cache: caches[2]!, tokens: parts[2]! },
    ])
    const expected = [
      dogeLogits(checkpoint, parts[0]!)[10]!,
      dogeLogits(checkpoint, parts[0]!)[3]!,
      dogeLogits(checkpoint, parts[1]!)[24]!,
      dogeLogits(checkpoint, text.slice(0, 21))[20]!,
    ].flat()
    const worst = Math.max(...expected.map((value, i) => difference((data as Float32Array)[i]!, value)))
    expect(worst).toBeLessThan(1e-4)
    expect(caches.map(({ seenTokens }) => seenTokens)).toEqual([11, 25, 21])
  })

  for (const backend of backendNames) {
    it.skipIf(backends[backend].probe() !== true)(`with attention on backend ${backend}`, async () => {
      const { checkpoint, model } = await load({}, { backend })
      expect(model.describe().backend).toContain(backend)
      expect(await worstError(model, checkpoint)).toBeLessThan(1e-4)
    })
  }

  it('when the folder holds links, as the download cache of Hugging Face does', async () => {
    const { checkpoint } = await load({ shards: 2 })
    const folder = await mkdtemp(join(tmpdir(), 'kvasir-links-'))
    for (const name of await readdir(checkpoint.folder))
      await symlink(join(checkpoint.folder, name), join(folder, name))
    const model = await loadModel(folder, { threads: 1 })
    opened.push({ model, folder })
    expect(await worstError(model, checkpoint)).toBeLessThan(1e-4)
  })

  it('when weights begin at odd bytes', async () => {
    const checkpoint = await writeDogeCheckpoint()
    const file = join(checkpoint.folder, 'model.safetensors')
    const bytes = await readFile(file)
    const length = Number(bytes.readBigUInt64LE()) + 1
    const prefix = Buffer.alloc(8)
    prefix.writeBigUInt64LE(BigInt(length))
    const header = bytes.subarray(8, 8 + length - 1)
    await writeFile(file, Buffer.concat([prefix, header, Buffer.from(' '), bytes.subarray(8 + length - 1)]))
    const model = await loadModel(checkpoint.folder, { threads: 1 })
    opened.push({ model, folder: checkpoint.folder })
    expect(await worstError(model, checkpoint)).toBeLessThan(1e-4)
  })
})

describe('what is refused', () => {
  let checkpoint: DogeCheckpoint
  beforeAll(async () => {
    ;({ checkpoint } = await load())
  })

  const options: [object, string][] = [
    [{ windw: 3 }, 'unknown option "windw" for loadModel (did you mean "window"?)'],
    [{ window: 0 }, 'for window, got 0'],
    [{ chunkSize: 0 }, 'for chunkSize, got 0'],
    [{ threads: 0.5 }, 'for threads, got 0.5'],
    [{ quantize: 'int3' }, 'for quantize, got "int3"'],
    [{ policy: 'linaer' }, 'for policy, got "linaer"'],
    [{ backend: 'cuda' }, '"cuda"'],
  ]
  for (const [option, message] of options) {
    it(`refuses ${JSON.stringify(option)}`, async () => {
      await expect(loadModel(checkpoint.folder, option as LoadOptions)).rejects.toThrow(message)
    })
  }

  it('refuses a path that is no folder', async () => {
    await expect(loadModel('/nowhere/at/all')).rejects.toMatchObject({ code: 'not-found' })
    await expect(loadModel(import.meta.filename)).rejects.toThrow('expected a model folder, got a file at')
    await expect(loadModel('')).rejects.toThrow('expected the path of a model folder, got ""')
  })

  it('refuses calls after dispose, which waits for those before', async () => {
    const other = await loadModel(checkpoint.folder, { threads: 1 })
    const cache = other.createCache()
    const last = other.forward([{ cache, tokens: [1] }])
    await Promise.all([other.dispose(), other.dispose()])
    expect((await last).dims).toEqual([1, 260])
    await expect(other.forward([{ cache, tokens: [1] }])).rejects.toThrow('got one that was disposed')
  })
})

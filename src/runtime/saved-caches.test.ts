/** Caches in files: what comes back goes on bit by bit, and whatever is not whole or does not fit is refused. */
import { cp, mkdtemp, readdir, readFile, rm, truncate, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import fc from 'fast-check'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { CacheOptions, KvCache } from '../cache/contract.ts'
import { type DogeCheckpoint, writeDogeCheckpoint } from '../onnx/testing/doge-checkpoint.ts'
import type { CausalLM, LoadOptions } from './contract.ts'
import { loadModel as loadHere } from './load-model.ts'
import { loadModel } from './open-model.ts'

let checkpoint: DogeCheckpoint
let other: DogeCheckpoint
let folder: string
let here: CausalLM
let there: CausalLM
const options: LoadOptions = { threads: 1, chunkSize: 8, policy: 'linear', window: 6 }
beforeAll(async () => {
  checkpoint = await writeDogeCheckpoint()
  folder = await mkdtemp(join(tmpdir(), 'kvasir-'))
  here = await loadModel(checkpoint.folder, { ...options, worker: false })
  there = await loadModel(checkpoint.folder, options)
})
afterAll(async () => {
  await here.dispose()
  await there.dispose()
  for (const path of [checkpoint.folder, other?.folder, folder]) if (path) await rm(path, { recursive: true })
})

const prompt = Array.from({ length: 20 }, (_, i) => (i * 37 + 5) % 250)

async function logits(model: CausalLM, cache: KvCache): Promise<Float32Array> {
  const { data } = await model.forward([{ cache, tokens: [3, 1, 4], logitsOf: [0, 1, 2] }])
  return data as Float32Array
}

async function saved(
  name: string,
  model = here,
  cache = model.createCache(),
): Promise<{ path: string; cache: KvCache }> {
  const path = join(folder, name)
  await model.prefill(cache, prompt)
  await model.saveCache(cache, path)
  return { path, cache }
}

describe('a cache in a file', () => {
  it.each(['here', 'in a thread'])('goes on as though nothing had been, %s', async (where) => {
    const model = where === 'here' ? here : there
    const policies: Partial<CacheOptions>[] = [
      {},
      { policy: 'linear', positions: 'rank', kvDtype: 'f16' },
      { policy: 'linear', importance: 'value-norm', storage: 'paged' },
    ]
    for (const [n, choice] of policies.entries()) {
      const { path, cache } = await saved(`${where} ${n}`, model, model.createCache(choice))
      const restored = await model.restoreCache(path)
      expect(restored.seenTokens).toBe(20)
      expect(restored.getCacheInfo()).toEqual(cache.getCacheInfo())
      expect(await logits(model, restored)).toEqual(await logits(model, cache))
      const [report, original] = [await model.explainCache(restored), await model.explainCache(cache)]
      expect(report).toEqual(original)
      expect(Array.from(report.tokens!)).toEqual([...prompt, 3, 1, 4])
      await model.checkCache(restored)
      restored.dispose()
    }
  })

  it('goes from one thread to another', async () => {
    const { path, cache } = await saved('crossing', there)
    expect(await logits(here, await here.restoreCache(path))).toEqual(await logits(there, cache))
  })

  it('leaves nothing beside the file, and nothing at all where it can not write', async () => {
    const { path, cache } = await saved('alone')
    const before = await readFile(path)
    await here.saveCache(cache, path)
    expect(await readFile(path)).toEqual(before)
    expect((await readdir(folder)).filter((name) => name.includes('.tmp'))).toEqual([])
    const nowhere = join(folder, 'none', 'x')
    await expect(here.saveCache(cache, nowhere)).rejects.toThrow(/none.x: ENOENT: [a-z ]+$/)
    await expect(here.saveCache(cache, folder)).rejects.toThrow(/can't write .*: E[A-Z]+: [a-z ]+$/)
  })

  it('has any name that a file can have', async () => {
    const { path } = await saved('n'.repeat(255))
    expect((await here.restoreCache(path)).seenTokens).toBe(20)
  })

  it('carries several caches and a note', async () => {
    const caches = [here.createCache(), here.createCache({ policy: 'full', window: undefined })]
    await here.prefill(caches[1]!, prompt)
    const path = join(folder, 'several')
    await here.saveCaches(caches, path, { mine: [1, 'two'] })
    await expect(here.restoreCaches(path)).rejects.toThrow(/expected a cache with policy "linear", got "full"/)
    const open = await loadModel(checkpoint.folder, { threads: 1, worker: false })
    await expect(open.restoreCache(path)).rejects.toThrow(/expected one cache in .*several, got 2/)
    const { note, tokens, caches: restored } = await open.restoreCaches(path)
    expect(note).toEqual({ mine: [1, 'two'] })
    expect(tokens.map((ids) => ids.length)).toEqual([0, 20])
    expect(restored.map(({ seenTokens }) => seenTokens)).toEqual([0, 20])
    await open.dispose()
  })
})

describe('a file is refused', () => {
  it.each<[Partial<CacheOptions>, RegExp]>([
    [{ policy: 'streaming' }, /expected a cache with policy "streaming", got "linear"/],
    [{ window: 7 }, /expected a cache with window 7, got 6/],
    [{ kvDtype: 'f16' }, /expected a cache with kvDtype "f16", got "f32"/],
    [{ positions: 'rank' }, /expected a cache with positions "rank", got "original"/],
    [{ sinks: 1 }, /expected sinks 1, got "sinks 0"/],
    [{ importance: 'key-norm' }, /expected a cache with importance "key-norm", got "model"/],
    [{ windw: 3 } as object, /did you mean "window"/],
  ])('with options %j', async (change, message) => {
    const { path } = await saved('options')
    await expect(here.restoreCache(path, change)).rejects.toThrow(message)
    await expect(there.restoreCache(path, change)).rejects.toThrow(message)
    expect((await here.restoreCache(path, { kvDtype: 'f32', evictionLog: 256, storage: 'paged' })).seenTokens).toBe(20)
  })

  it('of another model, by weights alone', async () => {
    other = await writeDogeCheckpoint()
    const weights = join(other.folder, 'model.safetensors')
    const bytes = await readFile(weights)
    const changed = bytes.map((byte, i) => (i > bytes.length / 2 && i % 97 === 0 ? byte ^ 1 : byte))
    const model = await loadModel(other.folder, { ...options, worker: false })
    const { path } = await saved('model')
    expect((await model.restoreCache(path)).seenTokens).toBe(20)
    await model.dispose()
    await writeFile(weights, changed)
    const tuned = await loadModel(other.folder, { ...options, worker: false })
    await expect(tuned.restoreCache(path)).rejects.toThrow(
      /expected caches of this model \(\w{32}\), got one of another/,
    )
    await tuned.dispose()
  })

  it('of a model one bit of whose weights is another', async () => {
    const bundled = join(import.meta.dirname, '../../models/kvasir-tiny')
    const changed = join(folder, 'changed')
    await cp(bundled, changed, { recursive: true })
    const weights = join(changed, 'model.safetensors')
    const bytes = await readFile(weights)
    bytes[Math.floor(bytes.length / 2) + 20_000]! ^= 1
    await writeFile(weights, bytes)
    const path = join(folder, 'of the bundled model')
    const [original, copy] = [await loadHere(bundled, { threads: 1 }), await loadHere(changed, { threads: 1 })]
    const cache = original.createCache()
    await original.prefill(cache, prompt)
    await original.saveCache(cache, path)
    await expect(copy.restoreCache(path)).rejects.toThrow('expected caches of this model')
    for (const model of [original, copy]) await model.dispose()
  })

  it('that is missing, another kind, of another version, or no path', async () => {
    const path = join(folder, 'strange')
    await expect(here.restoreCache(join(folder, 'nowhere'))).rejects.toThrow(/can't read .*nowhere.*ENOENT/)
    await writeFile(path, 'x'.repeat(100))
    await expect(here.restoreCache(path)).rejects.toThrow(/strange: expected a file that holds caches/)
    const bytes = await readFile((await saved('version')).path)
    bytes.writeUInt32LE(9, 8)
    await writeFile(path, bytes)
    await expect(here.restoreCache(path)).rejects.toThrow(/expected format version 1, got 9/)
    await expect(there.restoreCache('')).rejects.toThrow(/expected the path of a file, got ""/)
  })

  it('that ends anywhere but at its end', async () => {
    const { path } = await saved('short')
    const { length } = await readFile(path)
    const ends = [
      0,
      1,
      7,
      8,
      31,
      32,
      33,
      79,
      80,
      ...Array.from({ length: 40 }, (_, i) => Math.floor((i * length) / 40)),
    ]
    for (const end of new Set(ends.sort((a, b) => b - a))) {
      await truncate(path, end)
      await expect(here.restoreCache(path)).rejects.toThrow(/short: expected/)
    }
    const whole = await saved('long')
    await writeFile(whole.path, Buffer.concat([await readFile(whole.path), Buffer.alloc(1)]))
    await expect(here.restoreCache(whole.path)).rejects.toThrow(/not whole/)
  })

  it('with any bit flipped', async () => {
    const { path } = await saved('flipped')
    const bytes = await readFile(path)
    const bit = fc.oneof(fc.integer({ min: 0, max: 32 * 8 - 1 }), fc.integer({ min: 0, max: bytes.length * 8 - 1 }))
    const property = fc.asyncProperty(fc.uniqueArray(bit, { minLength: 1, maxLength: 4 }), async (bits) => {
      const broken = Buffer.from(bytes)
      for (const at of bits) broken[at >> 3]! ^= 1 << (at & 7)
      await writeFile(path, broken)
      await expect(here.restoreCache(path)).rejects.toThrow(/\[kvasir:cache\] .*flipped: /)
    })
    await fc.assert(property, { numRuns: 150 })
  })

  it('of a cache whose tokens nobody told', async () => {
    const cache = here.createCache()
    const { layers } = here.shape
    for (const [n, { numHeads, numKvHeads, headDim, valueDim }] of layers.entries()) {
      const numbers = (size: number): Float32Array => new Float32Array(size)
      const kv = { key: numbers(numKvHeads * headDim), value: numbers(numKvHeads * valueDim) }
      const input = { ...kv, query: numbers(numHeads * headDim), importance: numbers(numKvHeads), numTokens: 1 }
      cache.layer(n).attend(input, numbers(numHeads * valueDim))
    }
    await expect(here.saveCache(cache, join(folder, 'untold'))).rejects.toThrow(/tokens whose ids nobody told/)
  })
})

describe('a conversation in a file', () => {
  it.each(['full', 'linear'] as const)('goes on without reading anything again, %s', async (policy) => {
    const template = '{% for m in messages %}{{ m.content }}{% endfor %}'
    await writeFile(join(checkpoint.folder, 'chat_template.jinja'), template)
    const model = await loadModel(checkpoint.folder, { threads: 1, policy, ...(policy === 'linear' && { window: 6 }) })
    const turns = { maxNewTokens: 4 }
    const first = model.startConversation(turns)
    await first.send('Mara put the key in the drawer.')
    const path = join(folder, `talk ${policy}`)
    await first.save(path)
    const second = model.startConversation(turns)
    await second.restore(path)
    expect(second.messages).toEqual(first.messages)
    const [a, b] = [await first.send('Where?'), await second.send('Where?')]
    expect(b.reusedTokens).toBeGreaterThan(10)
    expect([b.text, b.tokens, b.reusedTokens, b.kv]).toEqual([a.text, a.tokens, a.reusedTokens, a.kv])
    await expect(second.restore(join(folder, 'nothing'))).rejects.toThrow(/can't read/)
    expect((await second.send('And?')).reusedTokens).toBeGreaterThan(10)
    first.dispose()
    second.dispose()
    await expect(second.save(path)).rejects.toThrow(/disposed/)
    await model.dispose()
  })
})

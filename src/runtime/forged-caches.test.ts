/** Files of caches that somebody made up: nothing is made room for that the file can't fill. */
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import type { CacheOptions } from '../cache/contract.ts'
import { SectionFile, writeSections } from '../cache/snapshot/section-file.ts'
import { type DogeCheckpoint, writeDogeCheckpoint } from '../onnx/testing/doge-checkpoint.ts'
import type { KvasirError } from '../tensor/error.ts'
import type { CausalLM } from './contract.ts'
import { inspectCacheFile } from './inspect-cache-file.ts'
import { loadModel } from './load-model.ts'

let checkpoint: DogeCheckpoint
let folder: string
let model: CausalLM
beforeAll(async () => {
  checkpoint = await writeDogeCheckpoint()
  folder = await mkdtemp(join(tmpdir(), 'kvasir-'))
  model = await loadModel(checkpoint.folder, { threads: 1, policy: 'linear', window: 6 })
})
afterAll(async () => {
  await model.dispose()
  for (const path of [checkpoint.folder, folder]) await rm(path, { recursive: true })
})

async function saved(name: string, options: Partial<CacheOptions> = {}): Promise<string> {
  const cache = model.createCache(options)
  await model.prefill(
    cache,
    Array.from({ length: 20 }, (_, i) => (i * 37 + 5) % 250),
  )
  await model.saveCache(cache, join(folder, name))
  return join(folder, name)
}

test('a file that asks for more room than it can fill, is refused, unless the reader asks for as much', async () => {
  const path = await saved('honest')
  const file = await SectionFile.open(path)
  const sections = await Promise.all(file.names.map(async (name) => ({ name, bytes: await file.read(name) })))
  await file.close()
  const forge = async (
    change: (about: { caches: [{ options: object; seenTokens: number }]; shape: object }) => void,
  ) => {
    const about = JSON.parse(sections[0]!.bytes.toString())
    change(about)
    const [_, ...rest] = sections.map(({ name, bytes }) => ({ name, data: () => bytes }))
    writeSections(join(folder, 'forged'), [{ name: 'about', data: () => Buffer.from(JSON.stringify(about)) }, ...rest])
    return await inspectCacheFile(join(folder, 'forged')).catch(
      (error: KvasirError) => `${error.code} ${error.message}`,
    )
  }
  expect(await forge(() => {})).toMatchObject({ caches: [{ info: { seenTokens: 20 } }] })
  expect(await forge(({ caches: [cache] }) => Object.assign(cache.options, { window: 2 ** 24 }))).toMatch(
    /^invalid-file .*forged: expected window of at most 65536 in a file of 20 tokens, got 16777216/,
  )
  expect(await forge(({ caches: [cache] }) => Object.assign(cache.options, { kvBudget: 2 ** 40 }))).toMatch(
    /^invalid-file .*expected kvBudget of at most 1073741824/,
  )
  expect(await forge(({ caches: [cache] }) => Object.assign(cache, { seenTokens: 1e6 }))).toMatch(
    /^invalid-file .*expected ids of 1000000 tokens, got a section of 88 bytes/,
  )
  const layer = { numHeads: 65536, numKvHeads: 65536, headDim: 65536, valueDim: 65536 }
  expect(await forge(({ shape }) => Object.assign(shape, { numLayers: 1, layers: [layer] }))).toMatch(
    /^invalid-file .*expected model, shape and caches/,
  )
  const large = await saved('large', { window: 70_000 })
  await expect(inspectCacheFile(large)).rejects.toThrow('where that is right, ask for it')
  expect((await model.restoreCache(large, { window: 70_000 })).seenTokens).toBe(20)
})

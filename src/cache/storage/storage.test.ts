/** What storage costs: bytes by type, bytes that a window and a type save together, pages that hold no row. */
import { describe, expect, test } from 'vitest'
import { createRandom } from '../../kernels/cases.ts'
import { openKernels, rowBytes, type StorageType, storageTypes } from '../../kernels/index.ts'
import { createKvCache, createKvPool } from '../../policies/index.ts'
import { BoundedCache } from '../bounded/bounded-cache.ts'
import type { CacheOptions, LayerInput } from '../contract.ts'
import { FullCache } from '../full-cache.ts'
import { rowTypesOf } from './row-types.ts'

const kernels = openKernels({ threads: 1 })

function tokens(numTokens: number, { H = 2, K = 2, D = 64, E = 64 } = {}): LayerInput {
  const part = (size: number) => Float32Array.from({ length: numTokens * size }, (_, i) => Math.sin(i))
  return { numTokens, query: part(H * D), key: part(K * D), value: part(K * E), importance: part(K) }
}

test('16K tokens: a linear cache of 2048 in int8 takes 96 % less than all of them in f32', () => {
  const shape = { numHeads: 2, numKvHeads: 2, headDim: 128, valueDim: 128 }
  const all = new FullCache({ kernels, shape, ...rowTypesOf({}) }, true)
  const rules = { window: 2048, sinks: 0, recent: 0, rankBy: 'importance' as const }
  const linear = new BoundedCache({ kernels, shape, ...rules, ...rowTypesOf({ kvDtype: 'int8' }) }, true)
  const chunk = tokens(512, { D: 128, E: 128 })
  for (let n = 0; n < 32; n++) {
    all.append(chunk)
    linear.append(chunk)
  }
  expect([all.info().keptTokens, linear.info().keptTokens]).toEqual([16384, 2048])
  expect(1 - linear.info().bytes / all.info().bytes).toBeGreaterThanOrEqual(0.96)
  all.dispose()
  linear.dispose()
})

describe.each(storageTypes)('%s', (kvDtype) => {
  const layer = { numHeads: 2, numKvHeads: 2, headDim: 24, valueDim: 40 }
  const shape = { numLayers: 2, layers: [layer, layer], hasImportance: true }
  const bytesOf = (options: Partial<CacheOptions>): number => {
    const cache = createKvCache(kernels, shape, { policy: 'linear', window: 50, kvDtype, ...options })
    const output = new Float32Array(80 * 2 * 40)
    for (const index of [0, 1]) cache.layer(index).attend(tokens(80, { D: 24, E: 40 }), output)
    const { bytes } = cache.getCacheInfo()
    cache.dispose()
    return bytes
  }
  const row = (k: StorageType, v: StorageType): number => rowBytes(24, k) + rowBytes(40, v)

  test('bytes are those of rows, copies of the newest and importance', () => {
    const copies = ['fp8-e4m3', 'fp8-e5m2', 'int4'].includes(kvDtype) ? 13 * row('f16', 'f16') : 0
    expect(bytesOf({})).toBe(2 * 2 * (50 * (row(kvDtype, kvDtype) + 4) + copies))
    // Unasked at most a quarter of the window, and so less than the same window takes in f16.
    if (kvDtype === 'int4') expect(bytesOf({})).toBeLessThan(bytesOf({ kvDtype: 'f16' }))
    expect(bytesOf({ residual: 70 }) - bytesOf({ residual: 0 })).toBe(2 * 2 * 50 * row('f16', 'f16'))
    expect(bytesOf({ residual: 8 })).toBe(2 * 2 * (50 * (row(kvDtype, kvDtype) + 4) + 8 * row('f16', 'f16')))
    expect(bytesOf({ kvDtypeV: 'bf16', residual: 0 })).toBe(2 * 2 * 50 * (row(kvDtype, 'bf16') + 4))
    expect(bytesOf({ kvDtypeK: 'bf16', residual: 0 })).toBe(2 * 2 * 50 * (row('bf16', kvDtype) + 4))
  })

  test.each(['contiguous', 'paged'] as const)('a budget is used and kept to, %s', (storage) => {
    for (const residual of [0, 20]) {
      const kvBudget = 40_000
      const used = bytesOf({ storage, kvBudget, window: undefined, residual } as Partial<CacheOptions>)
      expect(used).toBeLessThanOrEqual(kvBudget)
      // Of 80 tokens that came, not all fit in the wider types.
      if (kvDtype === 'f32') expect(used).toBeGreaterThan(kvBudget * 0.9 - 2 * 2 * 16 * row(kvDtype, kvDtype))
    }
  })
})

test('of the pages of many sequences of all lengths less than 4 % is room for no row', () => {
  const random = createRandom(7)
  const layer = { numHeads: 1, numKvHeads: 1, headDim: 4, valueDim: 4 }
  const shape = { numLayers: 1, layers: [layer], hasImportance: false }
  const pool = createKvPool(kernels, { kvDtype: 'f16' })
  const open = () => {
    const cache = createKvCache(kernels, shape, { policy: 'full', kvDtype: 'f16', pool })
    // From a question of 32 tokens to a text of 4096, as many of each size.
    const length = Math.round(32 * 128 ** random())
    const input = tokens(length, { H: 1, K: 1, D: 4, E: 4 })
    cache.layer(0).attend(input, new Float32Array(length * 4))
    return cache
  }
  const caches = Array.from({ length: 48 }, open)
  const shares: number[] = []
  for (let step = 0; step < 60; step++) {
    const n = Math.floor(random() * caches.length)
    caches[n]!.dispose()
    caches[n] = open()
    const rows = caches.reduce((sum, { seenTokens }) => sum + seenTokens, 0)
    shares.push(1 - (rows * 2 * 8) / pool.usedBytes)
  }
  expect(Math.max(...shares)).toBeLessThan(0.04)
  expect(Math.min(...shares)).toBeGreaterThan(0)
  pool.checkIntegrity()
  for (const cache of caches) cache.dispose()
  expect(pool.usedBytes).toBe(0)
})

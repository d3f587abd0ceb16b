/** What is left of a cache that was disposed of: nothing that could reach the pages of another. */
import { describe, expect, test } from 'vitest'
import { openKernels } from '../kernels/index.ts'
import { createKvCache, createKvPool } from '../policies/index.ts'
import type { CacheOptions, KvCache } from './contract.ts'

const kernels = openKernels({ threads: 1 })
const layer = { numHeads: 4, numKvHeads: 2, headDim: 8, valueDim: 8 }
const shape = { numLayers: 1, layers: [layer], hasImportance: false }

function feed(cache: KvCache, numTokens: number): Float32Array {
  const part = (size: number) => Float32Array.from({ length: numTokens * size }, (_, i) => Math.sin(i))
  const output = new Float32Array(numTokens * 32)
  cache.layer(0).attend({ numTokens, query: part(32), key: part(16), value: part(16) }, output)
  return output
}

const policies: CacheOptions[] = [
  { policy: 'full' },
  { policy: 'window', window: 4 },
  { policy: 'streaming', window: 6 },
  { policy: 'h2o', window: 4 },
  { policy: 'adakv(keydiff)', window: 4 },
  { policy: 'full', kvDtype: 'int4' },
]

describe.each(policies)('%j', (options) => {
  test.each(['contiguous', 'paged', 'pool'])('%s: what was disposed of takes no tokens and has no forks', (where) => {
    const pool = where === 'pool' ? createKvPool(kernels, { kvDtype: options.kvDtype }) : undefined
    const storage = where === 'contiguous' ? 'contiguous' : 'paged'
    const create = () => createKvCache(kernels, shape, { ...options, storage, pool })
    const [gone, other] = [create(), create()]
    feed(gone, 7)
    gone.dispose()
    gone.dispose()
    expect(() => feed(gone, 1)).toThrow('used after it was freed')
    expect(() => gone.fork()).toThrow('used after it was freed')
    feed(other, 7)
    other.checkIntegrity?.()
    other.dispose()
    pool?.checkIntegrity()
    expect(pool?.usedBytes ?? 0).toBe(0)
  })
})

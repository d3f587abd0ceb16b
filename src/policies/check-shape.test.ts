import { describe, expect, test } from 'vitest'
import { openKernels } from '../kernels/index.ts'
import { createKvCache, createKvPool } from './index.ts'

const kernels = openKernels({ threads: 1 })
const layer = { numHeads: 4, numKvHeads: 2, headDim: 8, valueDim: 8 }
const shape = { numLayers: 1, layers: [layer], hasImportance: false }

describe('a cache is refused', () => {
  const wrong: [string, unknown, string][] = [
    ['no shape', undefined, 'expected an object with the options of a shape, got undefined'],
    [
      'no layers',
      { ...shape, layers: [] },
      'expected as many layers as numLayers says, at least one, got an array of 0',
    ],
    ['layers that are missing', { ...shape, numLayers: 7 }, 'got an array of 1 and numLayers 7'],
    ['no word on importance', { numLayers: 1, layers: [layer] }, 'true or false for hasImportance, got undefined'],
    ['no heads', { ...shape, layers: [{ ...layer, numHeads: 0 }] }, 'in 1..65536 for layers[0].numHeads, got 0'],
    ['half a dim', { ...shape, layers: [{ ...layer, headDim: 8.5 }] }, 'for layers[0].headDim, got 8.5'],
    [
      'no value dim',
      { ...shape, layers: [{ ...layer, valueDim: undefined }] },
      'for layers[0].valueDim, got undefined',
    ],
    ['3 heads to 2', { ...shape, layers: [{ ...layer, numHeads: 3 }] }, 'to be a multiple of numKvHeads, got 3 and 2'],
    ['a scale of NaN', { ...shape, layers: [{ ...layer, scale: Number.NaN }] }, 'for layers[0].scale, got NaN'],
    ['a window of 0', { ...shape, layers: [{ ...layer, window: 0 }] }, 'for layers[0].window, got 0'],
    [
      'slopes of other heads',
      { ...shape, layers: [{ ...layer, alibiSlopes: new Float32Array(2) }] },
      'expected a Float32Array of 4 for layers[0].alibiSlopes, got one of 2',
    ],
  ]
  test.each(wrong)('%s', (_, given, message) => {
    expect(() => createKvCache(kernels, given as never, { policy: 'full' })).toThrow(message)
  })

  test('kernels that are none', () => {
    const message = 'expected opened kernels for kernels, got an object (Object)'
    expect(() => createKvCache({} as never, shape, { policy: 'full' })).toThrow(message)
    expect(() => createKvPool({} as never)).toThrow(message)
  })

  test('pages of another size than those of its pool', () => {
    const pool = createKvPool(kernels, { pageSize: 8 })
    expect(() => createKvCache(kernels, shape, { policy: 'full', pool, pageSize: 4 })).toThrow(
      'expected a pageSize of 8, as in the pool, got 4',
    )
    createKvCache(kernels, shape, { policy: 'full', pool, pageSize: 8 }).dispose()
    createKvCache(kernels, shape, { policy: 'full', pool }).dispose()
  })
})

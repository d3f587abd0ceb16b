/** Rotations by rank: the numbers of `fill`, of which none is asked for twice. */
import { expect, test } from 'vitest'
import { createRandom, normal } from '../kernels/cases.ts'
import { openKernels } from '../kernels/index.ts'
import { createKvCache } from '../policies/index.ts'
import type { LayerRotary } from './contract.ts'
import { ranksOf } from './rank-rotations.ts'
import { smallLayer, smallRotary } from './testing/small-layer.ts'

const { pairs } = smallRotary

/** A rotary of its own, that notes what it is asked. */
function noting(asked: number[], tableRows = Number.POSITIVE_INFINITY): LayerRotary {
  return {
    ...smallRotary,
    fill(positions, length, cos, sin) {
      for (const position of Array.from(positions)) {
        if (position >= tableRows) throw new Error(`no row ${position}`)
        asked.push(position)
      }
      smallRotary.fill(positions, length, cos, sin)
    },
  }
}

test('they are those of the encoding, near and far, to the last row of a table', () => {
  const rotary = noting([], 5_000_001)
  for (const numbers of [[0, 63, 64, 3], [3, 3, 900], [5_000_000]].map((list) => Float64Array.from(list))) {
    const [cos, sin] = [0, 1].map(() => new Float32Array(numbers.length * pairs)) as [Float32Array, Float32Array]
    smallRotary.fill(numbers, 100, cos, sin)
    const table = ranksOf(rotary, numbers, 100)
    const rows = (values: Float32Array) =>
      Array.from(numbers).flatMap((number) => {
        const from = (number - table.first) * pairs
        return Array.from(values.subarray(from, from + pairs))
      })
    expect([rows(table.cos), rows(table.sin)]).toEqual([Array.from(cos), Array.from(sin)])
  }
})

test('encodings that go by a length keep them apart', () => {
  const rotary: LayerRotary = {
    ...smallRotary,
    fill(_, length, cos, sin) {
      cos.fill(length)
      sin.fill(0)
    },
  }
  for (const length of [10, 20, 10]) {
    const { cos } = ranksOf(rotary, [1], length)
    expect([...cos.subarray(pairs, 2 * pairs)]).toEqual(new Array(pairs).fill(length))
  }
})

test('many steps ask for no more numbers than there are ranks', () => {
  const asked: number[] = []
  const rotary = noting(asked)
  const { numHeads: H, numKvHeads: K, headDim: D, valueDim: E } = smallLayer
  const shape = { numLayers: 1, layers: [smallLayer], hasImportance: true }
  const options = { policy: 'random', window: 16, seed: 1, positions: 'rank' } as const
  const cache = createKvCache(openKernels({ threads: 1 }), shape, options)
  const random = createRandom(3)
  for (let step = 0; step < 200; step++) {
    const rows = { query: normal(random, H * D), key: normal(random, K * D), value: normal(random, K * E) }
    const input = {
      ...rows,
      importance: new Float32Array(K),
      numTokens: 1,
      rotary: { ...rotary, textLength: step + 1 },
    }
    cache.layer(0).attend(input, new Float32Array(H * E))
  }
  expect(asked.length).toBe(new Set(asked).size)
  expect(asked.length).toBeLessThanOrEqual(2 * 16 + 2)
})

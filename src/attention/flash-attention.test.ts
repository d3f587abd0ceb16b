import { Tensor } from 'onnxruntime-common'
import { describe, expect, test } from 'vitest'
import { attention } from './attention.ts'
import { flashAttention } from './flash-attention.ts'
import type { FlashOptions } from './flash-options.ts'
import { define, type Pair } from './testing/definition.ts'
import { expectClose, expectSameBits, samples, sizesOf, usableBackends } from './testing/tensors.ts'

/**
 * Which keys each query sees, as flash-attn's documentation draws it. Queries of zero weigh all visible keys evenly, and
 * the value of key j is a one at j.
 */
async function drawMask(T: number, S: number, options: Omit<FlashOptions, 'returnLse'>): Promise<string[]> {
  const q = new Tensor('float32', new Float32Array(T * 4), [1, T, 1, 4])
  const k = new Tensor('float32', new Float32Array(S * 4).fill(1), [1, S, 1, 4])
  const v = new Tensor(
    'float32',
    Float32Array.from({ length: S * S }, (_, i) => (i % (S + 1) === 0 ? 1 : 0)),
    [1, S, 1, S],
  )
  const weights = (await flashAttention(q, k, v, options)).data as Float32Array
  return Array.from({ length: T }, (_, t) =>
    Array.from(weights.subarray(t * S, (t + 1) * S), (w) => (w > 0 ? 1 : 0)).join(' '),
  )
}

describe.each(usableBackends)('flashAttention, %s', (backend) => {
  test('aligns the causal mask to the bottom right, as documented', async () => {
    expect(await drawMask(2, 5, { causal: true, backend })).toEqual(['1 1 1 1 0', '1 1 1 1 1'])
    expect(await drawMask(5, 2, { causal: true, backend })).toEqual(['0 0', '0 0', '0 0', '1 0', '1 1'])
  })

  test('counts windows from the aligned diagonal, as documented', async () => {
    // i + seqlenK - seqlenQ - left to i + seqlenK - seqlenQ + right, inclusive.
    expect(await drawMask(3, 5, { windowSize: [1, 0], backend })).toEqual(['0 1 1 0 0', '0 0 1 1 0', '0 0 0 1 1'])
    expect(await drawMask(3, 5, { windowSize: [0, 1], backend })).toEqual(['0 0 1 1 0', '0 0 0 1 1', '0 0 0 0 1'])
    expect(await drawMask(2, 4, { windowSize: [-1, -1], backend })).toEqual(['1 1 1 1', '1 1 1 1'])
    expect(await drawMask(2, 4, { windowSize: [1, -1], backend })).toEqual(['0 1 1 1', '0 0 1 1'])
    expect(await drawMask(2, 4, { windowSize: [1, 3], causal: true, backend })).toEqual(['0 1 1 0', '0 0 1 1'])
    expect(await drawMask(2, 4, { windowSize: [0, 0], sinks: 1, backend })).toEqual(['1 0 1 0', '1 0 0 1'])
  })

  test('is attention under the names of flash-attn', async () => {
    const sizes = sizesOf({ B: 2, T: 5, S: 19, H: 6, K: 3, D: 13, E: 7 })
    const { q, k, v, numbers } = samples(sizes, 1)
    const slopes = Float32Array.from({ length: 6 }, (_, h) => 0.1 * h)
    const options = { softmaxScale: 0.3, causal: true, windowSize: [7, 0], softcap: 2, alibiSlopes: slopes } as const
    const peers = { dropoutP: 0, deterministic: true, returnAttnProbs: false, backend, returnLse: true } as const
    const state = await flashAttention(q.tensor, k.tensor, v.tensor, { ...options, ...peers })
    const position = (t: number) => t + 14
    const expected = define({
      ...{ ...sizes, ...numbers, scale: 0.3, softcap: 2 },
      sees: ({ t, j }: Pair) => j <= position(t) && j >= position(t) - 7,
      added: ({ h, t, j }: Pair) => -(slopes[h] as number) * Math.abs(position(t) - j),
    })
    expectClose(state, expected, [2, 5, 6, 7])
    const { softmaxScale: scale, windowSize: window, ...same } = options
    const ours = { ...same, scale, window, backend, returnLse: true } as const
    expectSameBits(state, await attention(q.tensor, k.tensor, v.tensor, ours))
  })
})

import { Tensor } from 'onnxruntime-common'
import { describe, expect, test } from 'vitest'
import { flashAttention } from './flash-attention.ts'
import { flashAttentionVarlen } from './flash-varlen.ts'
import { toPages } from './testing/pages.ts'
import { bitsOf, int32, sample, usableBackends } from './testing/tensors.ts'

const [H, K, D, E] = [6, 2, 24, 17]
const queryLengths = [3, 0, 1, 37, 5, 1, 2]
const keyLengths = [7, 4, 130, 37, 2, 1, 0]

const sum = (lengths: readonly number[]) => lengths.reduce((a, b) => a + b, 0)
const offsets = (lengths: readonly number[]) => [0, ...lengths.map((_, b) => sum(lengths.slice(0, b + 1)))]

function slice(tensor: Tensor, from: number, to: number): Tensor {
  const [, heads, dim] = tensor.dims as [number, number, number]
  const data = (tensor.data as Float32Array).slice(from * heads * dim, to * heads * dim)
  return new Tensor('float32', data, [1, to - from, heads, dim])
}

const q = sample(1, [sum(queryLengths), H, D]).tensor
const k = sample(2, [sum(keyLengths), K, D]).tensor
const v = sample(3, [sum(keyLengths), K, E]).tensor
const lengths = { cuSeqlensQ: int32(offsets(queryLengths)), cuSeqlensK: offsets(keyLengths) }

const forms = [
  {},
  { causal: true },
  { causal: true, windowSize: [5, 0], sinks: 1, softcap: 4 },
  { causal: true, sinkLogits: [1, 2, 3, 4, 5, 6], softmaxScale: 0.2 },
] as const

describe.each(usableBackends)('flashAttentionVarlen, %s', (backend) => {
  test.each(forms)('gives each sequence the bits that it gets alone: %o', async (form) => {
    const limits = { maxSeqlenQ: 37, maxSeqlenK: 130 }
    const options = { ...form, backend, returnLse: true } as const
    const state = await flashAttentionVarlen(q, k, v, { ...options, ...lengths, ...limits })
    expect(state.output.dims).toEqual([sum(queryLengths), H, E])
    expect(state.lse.dims).toEqual([sum(queryLengths), H])
    const [firstQ, firstK] = [offsets(queryLengths), offsets(keyLengths)]
    for (const b of queryLengths.keys()) {
      const [t, s] = [firstQ[b] as number, firstK[b] as number]
      const [tEnd, sEnd] = [firstQ[b + 1] as number, firstK[b + 1] as number]
      const alone = await flashAttention(slice(q, t, tEnd), slice(k, s, sEnd), slice(v, s, sEnd), options)
      expect((state.output.data as Float32Array).slice(t * H * E, tEnd * H * E)).toEqual(alone.output.data)
      expect((state.lse.data as Float32Array).slice(t * H, tEnd * H)).toEqual(alone.lse.data)
    }
  })

  test('slopes may differ by sequence', async () => {
    const B = queryLengths.length
    const slopes = Float32Array.from({ length: B * H }, (_, i) => 0.02 * i)
    const alibiSlopes = new Tensor('float32', slopes, [B, H])
    const output = await flashAttentionVarlen(q, k, v, { ...lengths, alibiSlopes, causal: true, backend })
    const [t, s] = [offsets(queryLengths)[3] as number, offsets(keyLengths)[3] as number]
    const own = { alibiSlopes: slopes.subarray(3 * H, 4 * H), causal: true, backend }
    const alone = await flashAttention(slice(q, t, t + 37), slice(k, s, s + 37), slice(v, s, s + 37), own)
    expect((output.data as Float32Array).slice(t * H * E, (t + 37) * H * E)).toEqual(alone.data)
  })

  test.each([1, 5, 16, 256])('a block table with pages of %i gives the bits of contiguous keys', async (pageSize) => {
    for (const form of forms) {
      const paged = toPages({ k, v, lengths: keyLengths, pageSize, seed: pageSize })
      const contiguous = await flashAttentionVarlen(q, k, v, { ...form, ...lengths, backend })
      const { kPool, vPool, blockTable } = paged
      const output = await flashAttentionVarlen(q, kPool, vPool, { ...form, ...lengths, blockTable, backend })
      expect(Buffer.compare(bitsOf(output), bitsOf(contiguous))).toBe(0)
    }
  })

  test('no sequences at all', async () => {
    const none = (heads: number, dim: number) => new Tensor('float32', new Float32Array(0), [0, heads, dim])
    const options = { cuSeqlensQ: [0], cuSeqlensK: [0], backend }
    expect((await flashAttentionVarlen(none(H, D), none(K, D), none(K, E), options)).dims).toEqual([0, H, E])
  })
})

test('what does not fit is refused', async () => {
  const good = { ...lengths }
  const refuse = async (change: object, message: RegExp) => {
    await expect(flashAttentionVarlen(q, k, v, { ...good, ...change })).rejects.toThrow(message)
  }
  await refuse({ cuSeqlensQ: undefined }, /int32 tensor or integers for cuSeqlensQ, got undefined/)
  await refuse({ cuSeqlensQ: [] }, /expected 0 at the start of cuSeqlensQ, got nothing/)
  await refuse({ cuSeqlensQ: [1, 49], cuSeqlensK: [0, 181] }, /expected 0 at the start of cuSeqlensQ, got 1/)
  await refuse({ cuSeqlensQ: [0, 9, 4, 49], cuSeqlensK: [0, 1, 1, 181] }, /cuSeqlensQ to grow, got 4 after 9/)
  await refuse({ cuSeqlensQ: [0, 48], cuSeqlensK: [0, 181] }, /cuSeqlensQ to end at 49, .* got 48/)
  await refuse({ cuSeqlensQ: [0, 50], cuSeqlensK: [0, 181] }, /in 0\.\.49 for cuSeqlensQ\[1\], got 50/)
  await refuse({ cuSeqlensK: [0, 181] }, /expected shape \[8\] for cuSeqlensK, got \[2\]/)
  await refuse({ cuSeqlensQ: [0, 0.5, 49] }, /integer in 0\.\.49 for cuSeqlensQ\[1\], got 0\.5/)
  await refuse({ maxSeqlenQ: 36 }, /at most maxSeqlenQ = 36, got 37/)
  await refuse({ maxSeqlenK: 129 }, /at most maxSeqlenK = 129, got 130/)
  await refuse({ cuSeqLensQ: 1 }, /did you mean "cuSeqlensQ"/)
  await refuse({ blockTable: null }, /expected a Tensor for blockTable, got null/)
  await refuse({ blockTable: int32([0], [1, 1]) }, /expected shape \[any, any, any, 24\] for k/)
})

import { Tensor } from 'onnxruntime-common'
import { describe, expect, test } from 'vitest'
import type { FloatType } from '../kernels/index.ts'
import { flashAttention } from './flash-attention.ts'
import { flashAttentionKvPacked, flashAttentionQkvPacked } from './flash-packed.ts'
import { flashAttentionVarlen } from './flash-varlen.ts'
import { flashAttentionVarlenKvPacked, flashAttentionVarlenQkvPacked } from './flash-varlen-packed.ts'
import { define, type Pair } from './testing/definition.ts'
import { expectClose, expectSameBits, int32, sample, samples, sizesOf, usableBackends } from './testing/tensors.ts'

/** `[..., heads, D]` tensors of one shape as `[..., parts, heads, D]`. */
function pack(...parts: readonly Tensor[]): Tensor {
  const { type, dims } = parts[0] as Tensor
  const [heads, D] = dims.slice(-2) as [number, number]
  const tokens = dims.slice(0, -2)
  const row = heads * D
  const rows = tokens.reduce((a, b) => a * b, 1)
  const length = rows * parts.length * row
  const packed = type === 'float32' ? new Float32Array(length) : new Uint16Array(length)
  for (let n = 0; n < rows; n++) {
    for (const [i, { data }] of parts.entries()) {
      packed.set((data as Uint16Array).subarray(n * row, (n + 1) * row), (n * parts.length + i) * row)
    }
  }
  return new Tensor(type as 'float32', packed as Float32Array, [...tokens, parts.length, heads, D])
}

const forms = [{}, { causal: true, windowSize: [9, 0], sinks: 2 }] as const
const causal = (position: (b: number, t: number) => number) => ({
  sees: ({ b, t, j }: Pair) => j <= position(b, t),
})
const dtypeOf = (storage: FloatType) => (storage === 'bf16' ? ({ dtype: 'bf16' } as const) : {})

describe.each(usableBackends)('packed tensors, %s', (backend) => {
  const options = { backend, returnLse: true } as const

  test.each([
    { B: 2, S: 67, H: 3, D: 40, storage: 'f32' },
    { B: 3, S: 1, H: 2, D: 7, storage: 'f32' },
    { B: 1, S: 130, H: 2, D: 64, storage: 'f16' },
    { B: 2, S: 19, H: 2, D: 16, storage: 'bf16' },
    { B: 2, S: 0, H: 2, D: 8, storage: 'f32' },
    { B: 0, S: 5, H: 2, D: 8, storage: 'f32' },
  ] as const)('qkv give the bits of three tensors: %o', async ({ storage, ...partial }) => {
    const { q, k, v } = samples(sizesOf({ ...partial, T: partial.S }), 2, storage)
    const qkv = pack(q.tensor, k.tensor, v.tensor)
    for (const form of forms) {
      const all = { ...options, ...form, ...dtypeOf(storage) } as const
      expectSameBits(await flashAttentionQkvPacked(qkv, all), await flashAttention(q.tensor, k.tensor, v.tensor, all))
    }
  })

  test.each([
    { B: 2, T: 5, S: 67, H: 6, K: 3, D: 40, storage: 'f32' },
    { B: 3, T: 1, S: 9, H: 2, K: 1, D: 7, storage: 'f32' },
    { B: 1, T: 33, S: 70, H: 4, K: 2, D: 64, storage: 'bf16' },
    { B: 2, T: 6, S: 4, H: 2, K: 2, D: 16, storage: 'f16' },
    { B: 1, T: 2, S: 0, H: 2, K: 2, D: 8, storage: 'f32' },
    { B: 0, T: 2, S: 5, H: 2, K: 2, D: 8, storage: 'f32' },
  ] as const)('kv give the bits of two tensors, and what the formula says: %o', async ({ storage, ...partial }) => {
    const sizes = sizesOf(partial)
    const { B, T, S, H, D } = sizes
    const { q, k, v, numbers } = samples(sizes, 3, storage)
    const kv = pack(k.tensor, v.tensor)
    for (const form of forms) {
      const all = { ...options, ...form, ...dtypeOf(storage) } as const
      expectSameBits(
        await flashAttentionKvPacked(q.tensor, kv, all),
        await flashAttention(q.tensor, k.tensor, v.tensor, all),
      )
    }
    const state = await flashAttentionKvPacked(q.tensor, kv, { ...options, ...dtypeOf(storage), causal: true })
    expectClose(state, define({ ...sizes, ...numbers, ...causal((_, t) => t + S - T) }), [B, T, H, D])
  })

  test.each(['f32', 'f16', 'bf16'] as const)(
    'sequences end to end give the bits of tensors apart, %s',
    async (storage) => {
      const [queries, keys] = [
        [0, 3, 3, 40, 41],
        [0, 7, 11, 48, 48],
      ] as const
      const tensor = (seed: number, ...dims: number[]) => sample(seed, dims, storage).tensor
      const [H, K, D] = [4, 2, 24]
      const [q, k, v] = [tensor(1, 41, H, D), tensor(2, 48, K, D), tensor(3, 48, K, D)]
      const [fullK, fullV] = [tensor(4, 41, H, D), tensor(5, 41, H, D)]
      for (const form of forms) {
        const all = { ...options, ...form, ...dtypeOf(storage) } as const
        const lengths = { cuSeqlensQ: queries, cuSeqlensK: int32(keys), maxSeqlenQ: 37, maxSeqlenK: 37 }
        expectSameBits(
          await flashAttentionVarlenKvPacked(q, pack(k, v), { ...all, ...lengths }),
          await flashAttentionVarlen(q, k, v, { ...all, ...lengths }),
        )
        expectSameBits(
          await flashAttentionVarlenQkvPacked(pack(q, fullK, fullV), { ...all, cuSeqlens: queries, maxSeqlen: 37 }),
          await flashAttentionVarlen(q, fullK, fullV, { ...all, cuSeqlensQ: queries, cuSeqlensK: queries }),
        )
      }
    },
  )

  test('no sequences at all', async () => {
    const none = (...dims: number[]) => new Tensor('float32', new Float32Array(0), dims)
    const lengths = { cuSeqlensQ: [0], cuSeqlensK: [0] }
    expect((await flashAttentionVarlenKvPacked(none(0, 4, 8), none(0, 2, 2, 8), { ...lengths, backend })).dims).toEqual(
      [0, 4, 8],
    )
    expect((await flashAttentionVarlenQkvPacked(none(0, 3, 2, 8), { cuSeqlens: [0], backend })).dims).toEqual([0, 2, 8])
  })
})

test('what does not fit is refused', async () => {
  const f32 = (...dims: number[]) => sample(1, dims).tensor
  const refuse = async (call: Promise<unknown>, message: RegExp) => void (await expect(call).rejects.toThrow(message))
  const q = f32(2, 3, 4, 8)
  await refuse(flashAttentionKvPacked(q, f32(2, 7, 3, 2, 8)), /\[2, any, 2, any, 8\] for kv, got \[2, 7, 3, 2, 8\]/)
  await refuse(flashAttentionKvPacked(q, f32(1, 7, 2, 2, 8)), /for kv, got \[1, 7, 2, 2, 8\]/)
  await refuse(flashAttentionKvPacked(q, f32(2, 7, 2, 3, 8)), /4 query heads to be a multiple of 3 KV heads/)
  await refuse(flashAttentionKvPacked(q, sample(1, [2, 7, 2, 2, 8], 'f16').tensor), /f32 for kv, as q is, got f16/)
  await refuse(
    flashAttentionKvPacked(q, f32(2, 7, 2, 2, 8), { casual: true } as object),
    /flashAttentionKvPacked.*causal/,
  )
  const tokens = f32(5, 4, 8)
  const lengths = { cuSeqlensQ: [0, 5], cuSeqlensK: [0, 6] }
  await refuse(flashAttentionVarlenKvPacked(tokens, f32(6, 2, 2, 9), lengths), /\[any, 2, any, 8\] for kv/)
  await refuse(flashAttentionVarlenKvPacked(tokens, f32(7, 2, 2, 8), lengths), /cuSeqlensK to end at 7/)
  const paged = { ...lengths, blockTable: int32([0], [1, 1]) } as object
  await refuse(flashAttentionVarlenKvPacked(tokens, f32(6, 2, 2, 8), { ...lengths, ...paged }), /option "blockTable"/)
  const qkv = f32(5, 3, 2, 8)
  await refuse(flashAttentionVarlenQkvPacked(qkv, { cuSeqlens: [0, 4] }), /cuSeqlens to end at 5/)
  await refuse(flashAttentionVarlenQkvPacked(qkv, { cuSeqlens: [0, 5], maxSeqlen: 4 }), /at most maxSeqlen = 4, got 5/)
  await refuse(flashAttentionVarlenQkvPacked(f32(5, 2, 2, 8), { cuSeqlens: [0, 5] }), /\[any, 3, any, any\] for qkv/)
})

import { Tensor } from 'onnxruntime-common'
import { describe, expect, test } from 'vitest'
import { createRandom } from '../kernels/cases.ts'
import { type ScaledDotProductOptions, scaledDotProductAttention } from './scaled-dot-product.ts'
import type { Sizes } from './testing/definition.ts'
import { expectNumbers, numbersOf, sample, sizesOf, usableBackends } from './testing/tensors.ts'

type Options = Omit<ScaledDotProductOptions, 'returnLse'>
type Matrix = number[][]

/**
 * The pseudo-code of PyTorch's documentation, for one head of one sequence: attn_bias of zeros, masked_fill with -inf
 * where tril(ones(L, S)) or a boolean mask is false, plus a float mask; softmax(q k^T scale + attn_bias) v. A row of
 * -inf alone, which gives NaN there, gives zeros here (as PyTorch's own kernels do by now).
 */
function pseudoCode(
  [q, k, v]: [Matrix, Matrix, Matrix],
  E: number,
  scale: number,
  mask: (l: number, s: number) => number,
): Matrix {
  return q.map((query, l) => {
    const weights = k.map((key, s) => query.reduce((sum, x, d) => sum + x * (key[d] as number), 0) * scale + mask(l, s))
    const most = Math.max(...weights)
    if (!(most > Number.NEGATIVE_INFINITY)) return new Array<number>(E).fill(0)
    const exps = weights.map((weight) => Math.exp(weight - most))
    const total = exps.reduce((a, b) => a + b, 0)
    return Array.from({ length: E }, (_, e) => exps.reduce((sum, x, s) => sum + (x / total) * (v[s]?.[e] as number), 0))
  })
}

/** `[b, h]` of a `[B, heads, rows, dim]` tensor. */
function head(tensor: Tensor, b: number, h: number): Matrix {
  const [, heads, rows, dim] = tensor.dims as [number, number, number, number]
  const numbers = numbersOf(tensor)
  return Array.from({ length: rows }, (_, r) => {
    const from = ((b * heads + h) * rows + r) * dim
    return Array.from(numbers.subarray(from, from + dim))
  })
}

const hidden = Number.NEGATIVE_INFINITY
type MaskOf = (b: number, h: number, l: number, s: number) => number

async function compare(
  partial: Partial<Sizes>,
  options: Options,
  mask: MaskOf,
  storage: 'f32' | 'f16' | 'bf16' = 'f32',
) {
  const { B, T, S, H, K, D, E } = sizesOf(partial)
  const query = sample(1, [B, H, T, D], storage).tensor
  const key = sample(2, [B, K, S, D], storage).tensor
  const value = sample(3, [B, K, S, E], storage).tensor
  const given = { ...options, dtype: storage === 'bf16' ? storage : undefined, returnLse: true } as const
  const { output, lse } = await scaledDotProductAttention(query, key, value, given)
  expect(output.dims).toEqual([B, H, T, E])
  expect(lse.dims).toEqual([B, H, T])
  const expected: number[] = []
  for (let b = 0; b < B; b++) {
    for (let h = 0; h < H; h++) {
      // key.repeat_interleave(H / K): neighbours share a head.
      const k = Math.floor(h / (H / K))
      const own = (l: number, s: number) => mask(b, h, l, s)
      const { scale = 1 / Math.sqrt(D) } = options
      const matrices = [head(query, b, h), head(key, b, k), head(value, b, k)] as [Matrix, Matrix, Matrix]
      expected.push(...pseudoCode(matrices, E, scale, own).flat())
    }
  }
  const half = { f32: 0, f16: 2 ** -11, bf16: 2 ** -8 }[storage]
  expectNumbers(numbersOf(output), expected, half, storage === 'bf16' ? half : undefined)
}

function boolMask(seed: number, dims: readonly number[]): Tensor {
  const random = createRandom(seed)
  const length = dims.reduce((a, b) => a * b, 1)
  return new Tensor(
    'bool',
    Uint8Array.from({ length }, () => (random() < 0.6 ? 1 : 0)),
    dims,
  )
}

/** An element by index from the right, with axes of one broadcast. */
function element(tensor: Tensor, numbers: ArrayLike<number>, ...index: number[]): number {
  const axes = index.slice(-tensor.dims.length)
  return numbers[
    axes.reduce((at, i, axis) => at * (tensor.dims[axis] as number) + (tensor.dims[axis] === 1 ? 0 : i), 0)
  ] as number
}

const sizes = { B: 2, T: 5, S: 9, H: 6, K: 6, D: 11, E: 7 }
const tall = { B: 1, T: 40, S: 33, H: 2, K: 2, D: 16 }

describe.each(usableBackends)('scaledDotProductAttention, %s', (backend) => {
  test.each([sizes, tall, { T: 1, S: 1 }, { S: 0 }, { T: 0 }, { B: 0 }, { T: 1, S: 301, H: 3, D: 64 }])(
    'is the pseudo-code of PyTorch: %o',
    async (size) => await compare(size, { backend }, () => 0),
  )

  test.each([sizes, tall, { T: 7, S: 7 }])(
    'aligns its causal mask to the top left, whatever T and S: %o',
    async (size) => {
      await compare(size, { isCausal: true, backend }, (_b, _h, l, s) => (s <= l ? 0 : hidden))
    },
  )

  test('scale, grouped heads, f16 and bf16', async () => {
    await compare(sizes, { scale: 0.9, backend }, () => 0)
    for (const K of [1, 2, 3])
      await compare({ ...sizes, K }, { enableGqa: true, isCausal: true, backend }, (_b, _h, l, s) =>
        s <= l ? 0 : hidden,
      )
    for (const storage of ['f16', 'bf16'] as const)
      await compare({ ...sizes, K: 2 }, { enableGqa: true, dropoutP: 0, backend }, () => 0, storage)
  })

  test.each([[2, 6, 5, 9], [2, 1, 5, 9], [1, 6, 1, 9], [1, 1, 1, 9], [2, 1, 1, 9], [6, 5, 9], [5, 9], [1, 9], [9]])(
    'masks broadcast over batch and heads: [%s, %s, %s, %s]',
    async (...given) => {
      const dims = given.filter((size) => size !== undefined)
      const bool = boolMask(4, dims)
      await compare(sizes, { attnMask: bool, backend }, (...index) =>
        element(bool, bool.data as Uint8Array, ...index) ? 0 : hidden,
      )
      const added = sample(5, dims)
      await compare(sizes, { attnMask: added.tensor, backend }, (...index) =>
        element(added.tensor, added.numbers, ...index),
      )
      const half = sample(6, dims, 'f16')
      await compare(
        sizes,
        { attnMask: half.tensor, backend },
        (...index) => element(half.tensor, half.numbers, ...index),
        'f16',
      )
      const brain = sample(7, dims, 'bf16')
      await compare(
        sizes,
        { attnMask: brain.tensor, backend },
        (...index) => element(brain.tensor, brain.numbers, ...index),
        'bf16',
      )
    },
  )

  test('rows that a mask hides altogether give zeros and -Infinity', async () => {
    const mask = new Tensor('bool', Uint8Array.of(0, 0, 0, 1, 0, 1), [2, 3])
    const [query, key] = [sample(1, [1, 2, 2, 4]).tensor, sample(2, [1, 2, 3, 4]).tensor]
    const { output, lse } = await scaledDotProductAttention(query, key, key, {
      attnMask: mask,
      backend,
      returnLse: true,
    })
    expect((output.data as Float32Array).slice(0, 4)).toEqual(new Float32Array(4))
    expect(Array.from(lse.data as Float32Array, Number.isFinite)).toEqual([false, true, false, true])
    expect((lse.data as Float32Array)[0]).toBe(hidden)
  })
})

test('what PyTorch refuses is refused', async () => {
  const [query, key] = [sample(1, [2, 6, 5, 8]).tensor, sample(2, [2, 2, 9, 8]).tensor]
  const full = sample(2, [2, 6, 9, 8]).tensor
  const refuse = async (options: object, message: RegExp, k = full) => {
    await expect(scaledDotProductAttention(query, k, k, options)).rejects.toThrow(message)
  }
  await refuse({}, /expected 6 heads in key and value, or enableGqa: true, got 2/, key)
  await refuse({ enableGqa: true }, /6 query heads to be a multiple of 4 KV heads/, sample(1, [2, 4, 9, 8]).tensor)
  await refuse({ isCausal: true, attnMask: boolMask(1, [5, 9]) }, /attnMask or isCausal, got both/)
  await refuse({ attnMask: boolMask(1, [9, 5]) }, /\[2 or 1, 6 or 1, 5 or 1, 9\] for attnMask, got \[9, 5\]/)
  await refuse({ attnMask: boolMask(1, [5, 1]) }, /for attnMask, got \[5, 1\]/)
  await refuse({ attnMask: boolMask(1, [1, 2, 6, 5, 9]) }, /for attnMask, got \[1, 2, 6, 5, 9\]/)
  await refuse(
    { attnMask: new Tensor('int32', new Int32Array(45), [5, 9]) },
    /float32 or float16 for attnMask, got int32/,
  )
  await refuse(
    { attnMask: sample(1, [5, 9], 'f16').tensor, dtype: 'f32' },
    /expected float32 .* for attnMask, got float16/,
  )
  await refuse({ attnMask: [[true]] }, /a Tensor for attnMask, got an array/)
  await refuse({ attnMask: new Tensor('float32', new Float32Array(45).fill(Number.NaN), [5, 9]) }, /attnMask, got NaN/)
  await refuse({ dropoutP: 0.5 }, /dropoutP is for training/)
  await refuse({ enable_gqa: true }, /did you mean "enableGqa"/)
  await refuse({ isCausal: 1 }, /true or false for isCausal, got 1/)
})

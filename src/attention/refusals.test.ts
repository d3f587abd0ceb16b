/** What every function refuses before it does any work, and in which words. */
import { Tensor } from 'onnxruntime-common'
import { describe, expect, test } from 'vitest'
import type { Kernels } from '../kernels/index.ts'
import { isKvasirError } from '../tensor/error.ts'
import { attention } from './attention.ts'
import { dynamicMaskAttention } from './dynamic-mask.ts'
import { flashAttention } from './flash-attention.ts'
import { flashAttentionWithKVCache } from './flash-kv-cache.ts'
import { flashAttentionKvPacked, flashAttentionQkvPacked } from './flash-packed.ts'
import { flashAttentionVarlen } from './flash-varlen.ts'
import { scaledDotProductAttention } from './scaled-dot-product.ts'
import { int32, sample } from './testing/tensors.ts'

const f32 = (...dims: number[]): Tensor => sample(1, dims).tensor
const f16 = (...dims: number[]): Tensor => sample(1, dims, 'f16').tensor
const u16 = (...dims: number[]): Tensor => sample(1, dims, 'bf16').tensor
const nan = (...dims: number[]): Tensor =>
  new Tensor('float32', new Float32Array(f32(...dims).size).fill(Number.NaN), dims)

const [q, k, v] = [f32(2, 3, 4, 8), f32(2, 7, 2, 8), f32(2, 7, 2, 5)]

/** As tensors of other libraries come. */
const loose = ({ type, dims, data }: Tensor) => ({ type, dims, data })

async function refusal(call: Promise<unknown>): Promise<string> {
  const error = await call.then(
    () => expect.fail('it was accepted'),
    (reason: unknown) => reason,
  )
  expect(isKvasirError(error), String(error)).toBe(true)
  return (error as Error).message
}

/** Kernels that fail the test when they are used. */
const untouchable = { attendAsync: () => expect.fail('work began') } as unknown as Kernels

describe('tensors', () => {
  const wrong: [string, [unknown, unknown, unknown], object, RegExp][] = [
    ['no tensor', [undefined, k, v], {}, /expected a Tensor for q, got undefined/],
    ['an array', [q, new Float32Array(3), v], {}, /expected a Tensor for k, got a Float32Array/],
    [
      'other strides',
      [{ ...loose(q), strides: [96, 8, 24, 1] }, k, v],
      {},
      /in q \(strides 96,32,8,1\), got 96,8,24,1/,
    ],
    ['three axes', [f32(3, 4, 8), k, v], {}, /expected shape \[any, any, any, any\] for q, got \[3, 4, 8\]/],
    ['another batch', [q, f32(1, 7, 2, 8), v], {}, /expected shape \[2, any, any, 8\] for k, got \[1, 7, 2, 8\]/],
    ['another head dim', [q, f32(2, 7, 2, 9), v], {}, /expected shape \[2, any, any, 8\] for k, got \[2, 7, 2, 9\]/],
    ['fewer values', [q, k, f32(2, 6, 2, 5)], {}, /expected shape \[2, 7, 2, any\] for v, got \[2, 6, 2, 5\]/],
    ['other heads of values', [q, k, f32(2, 7, 1, 5)], {}, /expected shape \[2, 7, 2, any\] for v/],
    ['3 heads to 2', [f32(2, 3, 3, 8), k, v], {}, /expected 3 query heads to be a multiple of 2 KV heads/],
    [
      '2 heads to 4',
      [f32(2, 3, 2, 8), f32(2, 7, 4, 8), f32(2, 7, 4, 5)],
      {},
      /expected 2 query heads to be a multiple of 4/,
    ],
    ['no heads', [f32(2, 3, 0, 8), k, v], {}, /in 1\.\.65536 for the number of query heads, got 0/],
    ['no KV heads', [q, f32(2, 7, 0, 8), f32(2, 7, 0, 5)], {}, /for the number of KV heads, got 0/],
    ['no head dim', [f32(2, 3, 4, 0), f32(2, 7, 2, 0), v], {}, /for the head dim, got 0/],
    ['no value dim', [q, k, f32(2, 7, 2, 0)], {}, /for the value dim, got 0/],
    ['a huge head dim', [f32(1, 1, 1, 65537), f32(1, 1, 1, 65537), f32(1, 1, 1, 5)], {}, /for the head dim, got 65537/],
    ['int32', [int32([1], [1, 1, 1, 1]), k, v], {}, /expected float32 or float16 for q, got int32/],
    ['float64', [new Tensor('float64', new Float64Array(1), [1, 1, 1, 1]), k, v], {}, /for q, got float64/],
    ['two types', [q, f16(2, 7, 2, 8), v], {}, /expected f32 for k, as q is, got f16/],
    ['two other types', [f16(2, 3, 4, 8), f16(2, 7, 2, 8), v], {}, /expected f16 for v, as q is, got f32/],
    ['bf16 without a word', [u16(2, 3, 4, 8), k, v], {}, /got uint16, which is taken as bf16 when dtype is "bf16"/],
    ['f32 as bf16', [q, k, v], { dtype: 'bf16' }, /expected uint16 \(dtype "bf16"\) for q, got float32/],
    ['f16 as f32', [f16(2, 3, 4, 8), k, v], { dtype: 'f32' }, /expected float32 \(dtype "f32"\) for q, got float16/],
  ]
  test.each(wrong)('%s', async (_name, tensors, options, message) => {
    const call = attention(...(tensors as [Tensor, Tensor, Tensor]), { ...options, kernels: untouchable })
    expect(await refusal(call)).toMatch(message)
  })

  test('a detached buffer, a short one, dims that were changed, data that is gone or elsewhere', async () => {
    const detached = f32(2, 7, 2, 8)
    structuredClone((detached.data as Float32Array).buffer, {
      transfer: [(detached.data as Float32Array).buffer as ArrayBuffer],
    })
    expect(await refusal(attention(q, detached, v))).toMatch(
      /expected 224 elements in k, got 0 \(a detached buffer\?\)/,
    )
    const short = {
      type: 'float32',
      dims: [2, 7, 2, 8],
      data: new Float32Array(100),
      location: 'cpu',
    } as unknown as Tensor
    expect(await refusal(attention(q, short, v))).toMatch(/expected 224 elements in k, got 100/)
    const stretched = f32(2, 7, 2, 8)
    ;(stretched.dims as number[])[1] = 8
    expect(await refusal(attention(q, stretched, f32(2, 8, 2, 5)))).toMatch(/expected 256 elements in k, got 224/)
    const bytes = {
      type: 'float32',
      dims: [2, 7, 2, 8],
      data: new Uint8Array(224),
      location: 'cpu',
    } as unknown as Tensor
    expect(await refusal(attention(q, bytes, v))).toMatch(/expected a Float32Array in k, got a Uint8Array/)
    const disposed = f32(2, 7, 2, 8)
    disposed.dispose()
    expect(await refusal(attention(q, disposed, v))).toMatch(/expected k with data, got one without/)
    const device = Tensor.fromGpuBuffer({} as never, { dataType: 'float32', dims: [2, 7, 2, 8] })
    expect(await refusal(attention(q, device, v))).toMatch(/expected k in main memory, got it on gpu-buffer/)
  })

  test.each([
    [[2, 7.5, 2, 8], /expected sizes in the dims of k, got \[2, 7\.5, 2, 8\]/],
    [[2, -7, 2, -8], /expected sizes in the dims of k, got \[2, -7, 2, -8\]/],
    [['2', 7, 2, 8], /expected sizes in the dims of k, got \["2", 7, 2, 8\]/],
    [[2, Number.NaN, 2, 8], /expected sizes in the dims of k, got \[2, NaN, 2, 8\]/],
    [null, /expected a Tensor for k, got an object/],
    [7, /expected a Tensor for k, got an object/],
  ])('dims of %j', async (dims, message) => {
    const odd = { type: 'float32', dims, data: new Float32Array(240), location: 'cpu' } as unknown as Tensor
    expect(await refusal(attention(q, odd, v, { kernels: untouchable }))).toMatch(message)
  })
})

test('tensors of other libraries: no strides are no reason to refuse, a type that is no text is', async () => {
  const output = await attention({ ...loose(q), strides: null } as unknown as Tensor, k, v)
  expect(output.dims).toEqual([2, 3, 4, 5])
  const odd = { ...loose(q), type: Symbol('float32') } as unknown as Tensor
  expect(await refusal(attention(odd, k, v))).toMatch(/expected float32 or float16 for q, got Symbol\(float32\)/)
})

test('sizes that no memory limits, since the tensors are empty', async () => {
  const empty = (...dims: number[]) => new Tensor('float32', new Float32Array(0), dims)
  const many = empty(2 ** 40, 0, 4, 8)
  const sequences = /in 0\.\.1048576 for the number of sequences, got 1099511627776/
  expect(await refusal(attention(many, many, many))).toMatch(sequences)
  expect(await refusal(flashAttentionWithKVCache(many, many, many))).toMatch(sequences)
  expect(await refusal(flashAttentionQkvPacked(empty(2 ** 40, 0, 3, 4, 8)))).toMatch(sequences)
  expect(await refusal(flashAttentionKvPacked(many, empty(2 ** 40, 0, 2, 4, 8)))).toMatch(sequences)
  const long = empty(0, 2 ** 40, 4, 8)
  expect(await refusal(attention(long, long, long))).toMatch(/in 0\.\.2147483646 for the number of queries/)
})

describe('options', () => {
  const wrong: [object, RegExp][] = [
    [{ casual: true }, /unknown option "casual" for attention \(did you mean "causal"\?\)/],
    [{ isCausal: true }, /unknown option "isCausal"/],
    [{ causal: 1 }, /true or false for causal, got 1/],
    [{ returnLse: 'yes' }, /true or false for returnLse, got "yes"/],
    [{ deterministic: 0 }, /true or false for deterministic, got 0/],
    [{ smoothSoftmax: 1 }, /true or false for smoothSoftmax, got 1/],
    [{ scale: Number.NaN }, /a finite number for scale, got NaN/],
    [{ scale: Number.POSITIVE_INFINITY }, /a finite number for scale, got Infinity/],
    [{ scale: '1' }, /a finite number for scale, got "1"/],
    [{ softcap: Number.NaN }, /a finite number for softcap, got NaN/],
    [{ softcap: -1 }, /softcap of at least 0 \(0: none\), got -1/],
    [{ softcap: 1e-300 }, /softcap that is above 0 as f32 too, got 1e-300/],
    [{ sinks: -1 }, /for sinks, got -1/],
    [{ sinks: Number.NaN }, /for sinks, got NaN/],
    [{ window: 5 }, /expected \[left, right\] for window, got 5/],
    [{ window: [5] }, /expected \[left, right\] for window, got an array of 1/],
    [{ window: [1.5, 0] }, /window \(left; -1: no limit\), got 1\.5/],
    [{ window: [0, Number.NaN] }, /window \(right; -1: no limit\), got NaN/],
    [{ window: [-2, 0] }, /got -2/],
    [{ alibiSlopes: [1, 2, 3] }, /expected shape \[4\] for alibiSlopes, got \[3\]/],
    [{ alibiSlopes: [1, 2, 3, Number.NaN] }, /finite numbers in alibiSlopes, got NaN/],
    [{ alibiSlopes: f32(3, 4) }, /expected shape \[2, 4\] for alibiSlopes, got \[3, 4\]/],
    [{ alibiSlopes: nan(2, 4) }, /finite numbers in alibiSlopes, got NaN/],
    [{ alibiSlopes: 0.5 }, /a float32 tensor or numbers for alibiSlopes, got 0\.5/],
    [{ sinkLogits: [0, 0, 0, Number.POSITIVE_INFINITY] }, /finite numbers or -Infinity in sinkLogits, got Infinity/],
    [{ sinkLogits: [0, 0, 0, 0], smoothSoftmax: true }, /sinkLogits or smoothSoftmax, got both/],
    [{ bias: nan(1, 1, 3, 7) }, /finite numbers or -Infinity in bias, got NaN/],
    [{ bias: f32(3, 6) }, /\[2 or 1, 4 or 1, 3 or 1, 7\] for bias, got \[3, 6\]/],
    [{ bias: f16(3, 7), dtype: 'f32' }, /expected float32 .* for bias, got float16/],
    [{ lifetimes: 3 }, /\{ births, deaths \} for lifetimes, got 3/],
    [{ lifetimes: [] }, /options of lifetimes, got an array of 0/],
    [{ lifetimes: { death: 3 } }, /did you mean "deaths"/],
    [{ lifetimes: { deaths: f32(2, 2, 7) } }, /expected int32 for lifetimes\.deaths, got float32/],
    [{ lifetimes: { births: int32([1], [1]) } }, /expected shape \[2, 2, 7\] for lifetimes\.births, got \[1\]/],
    [{ bias: { type: 'float32', dims: 7, data: new Float32Array(7) } }, /expected a Tensor for bias, got an object/],
    [{ kvLengths: [7, 8] }, /in 0\.\.7 for kvLengths\[1\], got 8/],
    [{ kvLengths: [7] }, /expected shape \[2\] for kvLengths, got \[1\]/],
    [{ kvLengths: f32(2) }, /expected int32 for kvLengths, got float32/],
    [{ kvLengths: 7 }, /int32 tensor or integers for kvLengths, got 7/],
    [{ dtype: 'f8' }, /one of "f32", "f16", "bf16" for dtype, got "f8"/],
    [{ backend: 'nativ' }, /did you mean "native"/],
    [{ backend: null }, /for backend, got null/],
    [{ backend: 'webgpu' }, /for backend, got "webgpu"/],
    [{ kernels: {} }, /opened kernels for kernels, got an object/],
    [{ dropout: 0.1 }, /dropout is for training, and attention only infers: expected 0 or none, got 0\.1/],
  ]
  test.each(wrong)('%o', async (options, message) => {
    expect(await refusal(attention(q, k, v, options))).toMatch(message)
  })

  test('something that holds no options', async () => {
    expect(await refusal(attention(q, k, v, null as never))).toMatch(
      /an object with the options of attention, got null/,
    )
    expect(await refusal(attention(q, k, v, 3 as never))).toMatch(/options of attention, got 3/)
    expect(await refusal(attention(q, k, v, [] as never))).toMatch(/options of attention, got an array of 0/)
    const both = { backend: 'reference', kernels: untouchable } as const
    expect(await refusal(attention(q, k, v, both))).toMatch(/backend or kernels, got both/)
  })

  test('the names of each function are its own, and every function refuses dropout', async () => {
    const head = [f32(2, 4, 3, 8), f32(2, 4, 7, 8), f32(2, 4, 7, 5)] as const
    const bias = f32(2, 2, 1, 7)
    const calls: [(options: object) => Promise<unknown>, object, RegExp][] = [
      [(o) => flashAttention(q, k, v, o), { scale: 1 }, /unknown option "scale" for flashAttention/],
      [(o) => flashAttention(q, k, v, o), { softmaxScale: Number.NaN }, /for softmaxScale, got NaN/],
      [(o) => flashAttention(q, k, v, o), { windowSize: [Number.NaN, 0] }, /windowSize \(left/],
      [(o) => flashAttention(q, k, v, o), { window: [0, 0] }, /did you mean "windowSize"|unknown option "window"/],
      [(o) => flashAttention(q, k, v, o), { returnAttnProbs: true }, /returnAttnProbs asks for probabilities/],
      [(o) => flashAttention(q, k, v, o), { returnAttnProbs: null }, /true or false for returnAttnProbs, got null/],
      [(o) => flashAttentionQkvPacked(f32(1, 5, 3, 2, 8), o), { causa: true }, /did you mean "causal"/],
      [
        (o) => flashAttentionQkvPacked(f32(1, 5, 2, 2, 8), o),
        {},
        /\[any, any, 3, any, any\] for qkv, got \[1, 5, 2, 2, 8\]/,
      ],
      [(o) => flashAttentionQkvPacked(f32(1, 5, 3, 0, 8), o), {}, /number of query heads, got 0/],
      [
        (o) => flashAttentionVarlen(f32(3, 4, 8), f32(7, 2, 8), f32(7, 2, 5), o as never),
        {},
        /for cuSeqlensQ, got undefined/,
      ],
      [(o) => flashAttentionWithKVCache(q, k, v, o), { cacheSeqlens: Number.NaN }, /cacheSeqlens\[0\], got NaN/],
      [(o) => scaledDotProductAttention(...head, o), { softmaxScale: 1 }, /unknown option "softmaxScale"/],
      [(o) => dynamicMaskAttention(q, k, v, bias, o), { scale: 1 }, /unknown option "scale"/],
    ]
    for (const [call, options, message] of calls) {
      expect(await refusal(call(options))).toMatch(message)
      expect(await refusal(call({ dropoutP: 0.1 }))).toMatch(/dropoutP is for training/)
    }
  })
})

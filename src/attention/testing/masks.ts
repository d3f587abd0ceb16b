/** Masks, biases and lifetimes of `attention`: each as options, and again in the words of the definition. */
import { Tensor } from 'onnxruntime-common'
import { createRandom, normal } from '../../kernels/cases.ts'
import type { AttentionOptions } from '../attention.ts'
import { type Defined, define, type Pair, type Sizes } from './definition.ts'
import { int32 } from './tensors.ts'

export interface Case {
  readonly name: string
  readonly sizes: Partial<Sizes>
  readonly options?: (sizes: Sizes) => Omit<AttentionOptions, 'returnLse'>
  /** The options again, in the words of the definition. `p` is the position of the query. */
  readonly sees?: (at: Pair & { p: number }, sizes: Sizes) => boolean
  readonly added?: (at: Pair & { p: number }, sizes: Sizes) => number
  readonly sink?: (h: number) => number
  readonly softcap?: number
  readonly scale?: number
  /** Keys of each sequence, when not S. */
  readonly numKeys?: (b: number) => number
}

const slope = (b: number, h: number): number => Math.fround(0.07 + 0.3 * b + 0.11 * h)
const slopes = (count: number, b = 0): number[] => Array.from({ length: count }, (_, h) => slope(b, h))
const biases = new Map<string, Tensor>()
const bias = (seed: number, dims: number[]): Tensor => {
  const key = `${seed} ${dims}`
  const known = biases.get(key)
  if (known) return known
  const length = dims.reduce((a, b) => a * b, 1)
  const values = normal(createRandom(seed), length).map((value) => (value > 1 ? Number.NEGATIVE_INFINITY : value))
  const fresh = new Tensor('float32', values, dims)
  biases.set(key, fresh)
  return fresh
}
const element = (tensor: Tensor, ...index: number[]): number => {
  const at = index.reduce((sum, i, axis) => sum * (tensor.dims[axis] as number) + (tensor.dims[axis] === 1 ? 0 : i), 0)
  return (tensor.data as Float32Array)[at] as number
}
const birth = (at: number): number => (at * 7) % 9
const death = (at: number): number => 3 + ((at * 5) % 11)
const perKey = ({ B, K, S }: Sizes, of: (at: number) => number): Tensor => {
  return int32(
    Array.from({ length: B * K * S }, (_, at) => of(at)),
    [B, K, S],
  )
}

export const big: Partial<Sizes> = { B: 2, T: 5, S: 13, H: 6, K: 2, D: 11, E: 5 }
export const tall: Partial<Sizes> = { B: 2, T: 37, S: 41, H: 4, K: 2, D: 16 }
const both = [big, tall]

export const cases: readonly Case[] = [
  { name: 'plain', sizes: big },
  { name: 'one query over many splits', sizes: { T: 1, S: 1187, H: 4, K: 1, D: 64 } },
  { name: 'MQA at 7 to 1', sizes: { T: 3, S: 17, H: 7, K: 1 } },
  { name: 'MHA', sizes: { T: 17, S: 33, H: 3, K: 3, D: 13 } },
  { name: 'dim one', sizes: { D: 1, E: 1 } },
  { name: 'dim 576 with values of 512', sizes: { T: 2, S: 19, H: 2, K: 1, D: 576, E: 512 } },
  { name: 'one token', sizes: { T: 1, S: 1 } },
  { name: 'no keys', sizes: { S: 0 }, options: () => ({ causal: true }) },
  { name: 'no queries', sizes: { T: 0 } },
  { name: 'no sequences', sizes: { B: 0 } },
  { name: 'scale', sizes: big, options: () => ({ scale: 0.7 }), scale: 0.7 },
  ...both.flatMap((sizes, n): Case[] => [
    { name: `causal ${n}`, sizes, options: () => ({ causal: true }), sees: ({ p, j }) => j <= p },
    {
      name: `causal, more queries than keys ${n}`,
      sizes: { ...sizes, S: (sizes.T as number) - 2 },
      options: () => ({ causal: true }),
      sees: ({ p, j }) => j <= p,
    },
    {
      name: `window to both sides ${n}`,
      sizes,
      options: () => ({ window: [3, 2] }),
      sees: ({ p, j }) => p - 3 <= j && j <= p + 2,
    },
    {
      name: `causal window with first tokens ${n}`,
      sizes,
      options: () => ({ window: [2, -1], causal: true, sinks: 3 }),
      sees: ({ p, j }) => j <= p && (j >= p - 2 || j < 3),
    },
    { name: `window of one ${n}`, sizes, options: () => ({ window: [0, 0] }), sees: ({ p, j }) => j === p },
    {
      name: `window without a limit to the left ${n}`,
      sizes,
      options: () => ({ window: [Number.POSITIVE_INFINITY, 1] }),
      sees: ({ p, j }) => j <= p + 1,
    },
    { name: `soft cap ${n}`, sizes, options: () => ({ softcap: 1.5 }), softcap: 1.5 },
    { name: `soft cap of zero ${n}`, sizes, options: () => ({ softcap: 0 }) },
    {
      name: `ALiBi ${n}`,
      sizes,
      options: ({ H }) => ({ alibiSlopes: slopes(H), causal: true }),
      sees: ({ p, j }) => j <= p,
      added: ({ h, p, j }) => -slope(0, h) * Math.abs(p - j),
    },
    {
      name: `ALiBi by sequence ${n}`,
      sizes,
      options: ({ B, H }) => ({
        alibiSlopes: new Tensor('float32', Float32Array.from([...slopes(H), ...slopes(H, 1)]), [B, H]),
      }),
      added: ({ b, h, p, j }) => -slope(b, h) * Math.abs(p - j),
    },
    {
      name: `learned sinks ${n}`,
      sizes,
      options: ({ H }) => ({ sinkLogits: Array.from({ length: H }, (_, h) => h - 1), causal: true }),
      sees: ({ p, j }) => j <= p,
      sink: (h) => h - 1,
    },
    { name: `smooth softmax ${n}`, sizes, options: () => ({ smoothSoftmax: true }), sink: () => 0 },
    ...[
      [2, 6, 5, 13],
      [1, 1, 5, 13],
      [2, 1, 1, 13],
      [1, 6, 1, 13],
    ].map((small): Case => {
      const shape = ({ B, H, T, S }: Sizes) => [B, H, T, S].map((size, i) => (small[i] === 1 ? 1 : size))
      return {
        name: `bias of [${small.map((size) => (size === 1 ? '1' : 'n'))}] ${n}`,
        sizes,
        options: (full) => ({ bias: bias(5, shape(full)) }),
        added: ({ b, h, t, j }, full) => element(bias(5, shape(full)), b, h, t, j),
      }
    }),
    {
      name: `lifetimes ${n}`,
      sizes,
      options: (s) => ({
        lifetimes: { births: perKey(s, birth), deaths: perKey(s, death) },
      }),
      sees: ({ b, k, p, j }, s) => {
        const at = (b * s.K + k) * s.S + j
        return birth(at) <= p && p < death(at)
      },
    },
    {
      name: `deaths alone ${n}`,
      sizes,
      options: (s) => ({ lifetimes: { deaths: perKey(s, death) }, causal: true }),
      sees: ({ b, k, p, j }, s) => j <= p && p < death((b * s.K + k) * s.S + j),
    },
    {
      name: `lengths ${n}`,
      sizes,
      options: () => ({ kvLengths: [4, 0], causal: true }),
      numKeys: (b) => [4, 0][b] as number,
      sees: ({ p, j }) => j <= p,
    },
    {
      name: `lengths, not causal ${n}`,
      sizes,
      options: () => ({ kvLengths: [3, 0] }),
      numKeys: (b) => [3, 0][b] as number,
    },
    {
      name: `everything at once ${n}`,
      sizes,
      options: ({ H, B, T, S }) => ({
        ...{ causal: true, window: [6, -1], sinks: 2, softcap: 3, scale: 0.4, kvLengths: int32([11, 9]) },
        ...{ alibiSlopes: Float32Array.from(slopes(H)), sinkLogits: new Float32Array(H).fill(-0.5) },
        ...{ bias: bias(6, [B, 1, T, S]), deterministic: true },
      }),
      ...{ softcap: 3, scale: 0.4, sink: () => -0.5, numKeys: (b) => [11, 9][b] as number },
      sees: ({ p, j }) => j <= p && (j >= p - 6 || j < 2),
      added: ({ b, h, t, p, j }, { B, T, S }) => {
        return element(bias(6, [B, 1, T, S]), b, 0, t, j) - slope(0, h) * Math.abs(p - j)
      },
    },
  ]),
]

/** What the definition makes of a case. */
export function defined(
  one: Case,
  sizes: Sizes,
  numbers: { q: Float32Array; k: Float32Array; v: Float32Array },
): Defined {
  const { numKeys = () => sizes.S, sees = () => true, added, sink, softcap, scale } = one
  const placed = (at: Pair) => ({ ...at, p: at.t + numKeys(at.b) - sizes.T })
  return define({
    ...sizes,
    ...numbers,
    ...{ sink, softcap, scale },
    sees: (at) => at.j < numKeys(at.b) && sees(placed(at), sizes),
    added: added && ((at) => added(placed(at), sizes)),
  })
}

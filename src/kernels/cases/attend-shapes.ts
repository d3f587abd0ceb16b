/** The shapes of attention that every backend is held to. */
import { attendForms } from './attend-forms.ts'
import type { AttendShape } from './attend-inputs.ts'

const hugeLogits = {
  ...{ numTokens: 30, numHeads: 2, numKvHeads: 1, headDim: 64, segments: [30] },
  ...{ visibility: 'causal', queryScale: 300 },
} as const satisfies Partial<AttendShape>

/**
 * Attention as others test it, and where others have failed: off-by-one lengths, primes, odd dims, every group size,
 * each storage type, each kind of lifetime.
 */
export const attendShapes: readonly AttendShape[] = [
  { name: 'one key', numTokens: 1, numHeads: 1, numKvHeads: 1, headDim: 64, segments: [1] },
  { name: 'empty cache', numTokens: 1, numHeads: 4, numKvHeads: 2, headDim: 64, segments: [0] },
  { name: 'no segment', numTokens: 3, numHeads: 2, numKvHeads: 2, headDim: 16, segments: [] },
  { name: 'block of 64', numTokens: 1, numHeads: 4, numKvHeads: 4, headDim: 64, segments: [64] },
  { name: 'block and one', numTokens: 1, numHeads: 8, numKvHeads: 2, headDim: 128, segments: [65], storage: 'f16' },
  { name: 'primes', numTokens: 1, numHeads: 6, numKvHeads: 2, headDim: 37, valueDim: 53, segments: [127, 31] },
  { name: 'dim one', numTokens: 1, numHeads: 2, numKvHeads: 1, headDim: 1, valueDim: 1, segments: [9] },
  { name: 'dim 576', numTokens: 1, numHeads: 2, numKvHeads: 1, headDim: 576, valueDim: 512, segments: [33] },
  { name: 'group of 8', numTokens: 1, numHeads: 8, numKvHeads: 1, headDim: 128, segments: [300], storage: 'f16' },
  { name: 'group of 7', numTokens: 1, numHeads: 14, numKvHeads: 2, headDim: 64, segments: [200], bias: 'random' },
  { name: 'splits', numTokens: 1, numHeads: 4, numKvHeads: 1, headDim: 64, segments: [5000, 37], storage: 'f16' },
  { name: 'hidden rows', numTokens: 1, numHeads: 4, numKvHeads: 2, headDim: 64, segments: [150], bias: 'some-hidden' },
  { name: 'all hidden', numTokens: 2, numHeads: 4, numKvHeads: 2, headDim: 64, segments: [20], bias: 'all-hidden' },
  { name: 'one key of int8', numTokens: 1, numHeads: 1, numKvHeads: 1, headDim: 64, segments: [1], storage: 'int8' },
  { name: 'one key of int4', numTokens: 1, numHeads: 5, numKvHeads: 1, headDim: 1, segments: [1], storage: 'int4' },
  {
    name: 'splits of int8',
    numTokens: 1,
    numHeads: 4,
    numKvHeads: 1,
    headDim: 64,
    segments: [5000, 37],
    storage: 'int8',
  },
  {
    name: 'group of 3, e4m3',
    numTokens: 1,
    numHeads: 6,
    numKvHeads: 2,
    headDim: 72,
    segments: [90],
    storage: 'fp8-e4m3',
  },
  {
    name: 'group of 7, e4m3',
    numTokens: 1,
    numHeads: 7,
    numKvHeads: 1,
    headDim: 40,
    segments: [70],
    storage: 'fp8-e4m3',
  },
  { name: 'group of 11, f16', numTokens: 1, numHeads: 22, numKvHeads: 2, headDim: 48, segments: [75], storage: 'f16' },
  { name: 'splits of int4', numTokens: 1, numHeads: 7, numKvHeads: 1, headDim: 128, segments: [3000], storage: 'int4' },
  {
    name: 'group of 15 of int4',
    numTokens: 1,
    numHeads: 15,
    numKvHeads: 1,
    headDim: 40,
    segments: [190],
    storage: 'int4',
  },
  {
    name: 'group of 9 of int8',
    numTokens: 1,
    numHeads: 9,
    numKvHeads: 1,
    headDim: 200,
    valueDim: 136,
    segments: [130, 3],
    storage: 'int8',
  },
  {
    name: 'long rows of int8',
    numTokens: 1,
    numHeads: 2,
    numKvHeads: 1,
    headDim: 1030,
    valueDim: 65,
    segments: [21],
    storage: 'int8',
  },
  {
    name: 'groups of 9 of e4m3',
    numTokens: 1,
    numHeads: 18,
    numKvHeads: 2,
    headDim: 72,
    valueDim: 100,
    segments: [130, 64],
    storage: 'fp8-e4m3',
  },
  { name: 'huge logits', numTokens: 1, numHeads: 2, numKvHeads: 2, headDim: 64, segments: [90], queryScale: 300 },
  { name: 'gathered', numTokens: 1, numHeads: 4, numKvHeads: 2, headDim: 80, segments: [100], gathers: true },
  { name: 'token major', numTokens: 1, numHeads: 4, numKvHeads: 2, headDim: 64, segments: [77], layout: 'token-major' },
  {
    name: 'one query, lifetimes',
    numTokens: 1,
    numHeads: 4,
    numKvHeads: 2,
    headDim: 64,
    segments: [99],
    visibility: 'random',
  },
  {
    name: 'two tokens',
    numTokens: 2,
    numHeads: 2,
    numKvHeads: 2,
    headDim: 64,
    segments: [50, 2],
    visibility: 'causal',
  },
  { name: 'causal tile', numTokens: 64, numHeads: 2, numKvHeads: 2, headDim: 64, segments: [64], visibility: 'causal' },
  {
    name: 'causal 67',
    numTokens: 67,
    numHeads: 8,
    numKvHeads: 2,
    headDim: 128,
    segments: [70, 67],
    visibility: 'causal',
    storage: 'f16',
  },
  {
    name: 'prefill primes',
    numTokens: 61,
    numHeads: 6,
    numKvHeads: 2,
    headDim: 37,
    valueDim: 29,
    segments: [113, 61],
    visibility: 'causal',
    bias: 'random',
  },
  {
    name: 'prefill dim 1',
    numTokens: 9,
    numHeads: 2,
    numKvHeads: 2,
    headDim: 1,
    valueDim: 3,
    segments: [9],
    visibility: 'causal',
  },
  {
    name: 'window',
    numTokens: 200,
    numHeads: 4,
    numKvHeads: 2,
    headDim: 64,
    segments: [100, 200],
    visibility: 'window',
    storage: 'f16',
  },
  {
    name: 'lifetimes',
    numTokens: 100,
    numHeads: 4,
    numKvHeads: 2,
    headDim: 64,
    segments: [300, 100],
    visibility: 'random',
    bias: 'some-hidden',
  },
  {
    name: 'prefill gathered',
    numTokens: 20,
    numHeads: 4,
    numKvHeads: 2,
    headDim: 64,
    segments: [150],
    gathers: true,
    visibility: 'random',
  },
  {
    name: 'prefill token major',
    numTokens: 33,
    numHeads: 4,
    numKvHeads: 1,
    headDim: 64,
    segments: [40],
    layout: 'token-major',
  },
  {
    name: 'prefill all hidden',
    numTokens: 40,
    numHeads: 4,
    numKvHeads: 2,
    headDim: 64,
    segments: [70],
    bias: 'all-hidden',
  },
  { name: 'prefill huge logits', ...hugeLogits },
  { name: 'prefill huge logits of f16', ...hugeLogits, storage: 'f16', queryStorage: 'f16' },
  { name: 'wide group', numTokens: 3, numHeads: 71, numKvHeads: 1, headDim: 16, segments: [30], visibility: 'all' },
  ...formShapes(),
  ...anchorShapes(),
  {
    name: 'group of 3',
    numTokens: 50,
    numHeads: 9,
    numKvHeads: 3,
    headDim: 48,
    segments: [130],
    storage: 'f16',
    visibility: 'random',
  },
]

/** Every form, for one query and for tiles of them. */
function formShapes(): AttendShape[] {
  const sizes = { segments: [70, 33], numHeads: 6, numKvHeads: 2, headDim: 64 } as const
  return Object.entries(attendForms).flatMap(([name, form]) => [
    { ...sizes, name: `${name}, one query`, numTokens: 1, ...form },
    { ...sizes, name: `${name}, tile`, numTokens: 33, ...form },
  ])
}

/** Dims, lengths, numbers of queries and group sizes that other libraries test with, where the kernels round them up. */
function anchorShapes(): AttendShape[] {
  const groups = [1, 4, 8, 12, 16, 20, 32]
  const layouts = ['head-major', 'token-major', 'shared'] as const
  const storages = ['f16', 'f32', 'bf16', 'int8', 'int4', 'fp8-e4m3', 'fp8-e5m2'] as const
  return [13, 40, 59, 72, 80, 96, 111, 192, 256, 320, 576].flatMap((headDim, n) => {
    const group = groups[n % groups.length] as number
    const common = {
      headDim,
      layout: layouts[n % 3],
      storage: storages[(n + 1) % storages.length],
      numKvHeads: 2 - (n % 2),
    }
    const numHeads = group * common.numKvHeads
    const length = [113, 512, 1025][n % 3] as number
    const tokens = [3, 32, 75][n % 3] as number
    return [
      {
        ...common,
        name: `dim ${headDim}, ${length} rows, group of ${group}`,
        numHeads,
        numTokens: 1,
        segments: [length],
      },
      {
        ...{
          ...common,
          name: `dim ${headDim}, ${tokens} queries`,
          numHeads: common.numKvHeads * (headDim < 192 ? 3 : 1),
        },
        ...{ numTokens: tokens, segments: [30, tokens], positions: 'consecutive', right: 0, gathers: n % 2 === 0 },
      },
    ]
  })
}

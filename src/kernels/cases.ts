/**
 * The cases that every backend is held to: one object an op and shape, with inputs from a seed. Conformance compares
 * each backend with the reference on them; benches take their shapes from here.
 */
import { f32ToF16 } from '../tensor/float16.ts'
import { type AttendArgs, type KeyValueSegment, NEVER, type StorageArray, type StorageType } from './contract.ts'

/** Uniform numbers in [0, 1) from a seed (splitmix32): small, good enough, the same everywhere. */
export function createRandom(seed: number): () => number {
  let state = seed >>> 0
  return () => {
    state = (state + 0x9e3779b9) >>> 0
    let z = state
    z = Math.imul(z ^ (z >>> 16), 0x21f0aaad)
    z = Math.imul(z ^ (z >>> 15), 0x735a2d97)
    return ((z ^ (z >>> 15)) >>> 0) / 2 ** 32
  }
}

/** Standard normal values. */
export function normal(random: () => number, length: number, scale = 1): Float32Array {
  return Float32Array.from({ length }, () => {
    return scale * Math.sqrt(-2 * Math.log(1 - random())) * Math.cos(2 * Math.PI * random())
  })
}

export interface AttendShape {
  readonly name: string
  readonly numTokens: number
  readonly numHeads: number
  readonly numKvHeads: number
  readonly headDim: number
  readonly valueDim?: number
  /** Rows of each segment; heads get a few rows less than that, so that lengths differ. */
  readonly segments: readonly number[]
  readonly storage?: StorageType
  /** Which rows a query sees: all, those before it, a window, lifetimes at random. */
  readonly visibility?: 'all' | 'causal' | 'window' | 'random'
  readonly isTokenMajor?: boolean
  readonly gathers?: boolean
  readonly bias?: 'none' | 'random' | 'some-hidden' | 'all-hidden'
  /** Factor on q: large ones make logits of hundreds. */
  readonly queryScale?: number
}

/** Attention cases: off-by-one lengths, primes, odd dims, every group size, each storage type, each kind of lifetime. */
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
  { name: 'huge logits', numTokens: 1, numHeads: 2, numKvHeads: 2, headDim: 64, segments: [90], queryScale: 300 },
  { name: 'gathered', numTokens: 1, numHeads: 4, numKvHeads: 2, headDim: 80, segments: [100], gathers: true },
  { name: 'token major', numTokens: 1, numHeads: 4, numKvHeads: 2, headDim: 64, segments: [77], isTokenMajor: true },
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
    isTokenMajor: true,
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
  {
    name: 'prefill huge logits',
    numTokens: 30,
    numHeads: 2,
    numKvHeads: 1,
    headDim: 64,
    segments: [30],
    visibility: 'causal',
    queryScale: 300,
  },
  { name: 'wide group', numTokens: 3, numHeads: 71, numKvHeads: 1, headDim: 16, segments: [30], visibility: 'all' },
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

/** Inputs of a case. Storage that no query may look at holds NaN. */
export function createAttendCase(shape: AttendShape, seed: number): AttendArgs {
  const { numTokens, numHeads, numKvHeads, headDim, valueDim = headDim } = shape
  const random = createRandom(seed)
  const segments = shape.segments.map((rows, n) => createSegment(shape, rows, n === shape.segments.length - 1, random))
  return {
    query: normal(random, numTokens * numHeads * headDim, shape.queryScale),
    output: new Float32Array(numTokens * numHeads * valueDim).fill(Number.NaN),
    lse: new Float32Array(numTokens * numHeads).fill(Number.NaN),
    numTokens,
    numHeads,
    numKvHeads,
    headDim,
    valueDim,
    scale: 1 / Math.sqrt(headDim),
    firstPosition: 1000,
    segments,
  }
}

function createSegment(shape: AttendShape, rows: number, isLast: boolean, random: () => number): KeyValueSegment {
  const { numKvHeads: K, headDim, valueDim = headDim, visibility = 'all', bias = 'none', gathers, isTokenMajor } = shape
  const capacity = rows + 5
  const lengths = Int32Array.from({ length: K }, (_, k) => Math.max(0, rows - (k % 3)))
  const births = new Int32Array(K * capacity).fill(-NEVER)
  const deaths = new Int32Array(K * capacity).fill(NEVER)
  const biases = normal(random, K * capacity)
  for (let k = 0; k < K; k++) {
    for (let j = 0; j < capacity; j++) {
      const at = k * capacity + j
      if (isLast && visibility !== 'all') births[at] = 1000 + j
      if (visibility === 'window') deaths[at] = (isLast ? 1000 + j : 1000 + j - rows) + 48
      if (visibility === 'random') deaths[at] = 1000 + Math.floor(random() * (shape.numTokens + 1) * 1.2)
      if (bias === 'all-hidden' || (bias === 'some-hidden' && random() < 0.3)) biases[at] = Number.NEGATIVE_INFINITY
    }
  }
  const dead = unusedRows(shape, { capacity, lengths, births, deaths, biases })
  const store = (dim: number) => {
    const rowOf = (i: number) => Math.floor(i / dim)
    const headMajorRow = (i: number) => (isTokenMajor ? (rowOf(i) % K) * capacity + Math.floor(rowOf(i) / K) : rowOf(i))
    const values = normal(random, K * capacity * dim).map((value, i) => (dead[headMajorRow(i)] ? Number.NaN : value))
    return toStorage(values, shape.storage)
  }
  return {
    keys: store(headDim),
    values: store(valueDim),
    capacity,
    lengths,
    isTokenMajor,
    bias: bias === 'none' ? undefined : biases,
    births: visibility === 'all' ? undefined : births,
    deaths: visibility === 'all' || visibility === 'causal' ? undefined : deaths,
    rows: gathers ? Int32Array.from({ length: K * capacity }, (_, i) => capacity - 1 - (i % capacity)) : undefined,
  }
}

/** `[K, C]`: rows that no query of the case looks at. */
function unusedRows(
  { numTokens, numKvHeads, gathers }: AttendShape,
  lists: { capacity: number; lengths: Int32Array; births: Int32Array; deaths: Int32Array; biases: Float32Array },
): boolean[] {
  const { capacity, lengths, births, deaths, biases } = lists
  return Array.from({ length: numKvHeads * capacity }, (_, at) => {
    const row = at % capacity
    const length = lengths[Math.floor(at / capacity)] as number
    const isListed = gathers ? row >= capacity - length : row < length
    const isSeen = (births[at] as number) < 1000 + numTokens && (deaths[at] as number) > 1000
    return !isListed || !isSeen || biases[at] === Number.NEGATIVE_INFINITY
  })
}

function toStorage(values: Float32Array, storage: StorageType = 'f32'): StorageArray {
  return storage === 'f16' ? Uint16Array.from(values, f32ToF16) : values
}

/**
 * The cases that every backend is held to: one object an op and shape, with inputs from a seed. Conformance compares
 * each backend with the reference on them; benches take their shapes from here.
 */
import {
  type AttendArgs,
  type KeyValueSegment,
  type LogitMask,
  NEVER,
  type RowLayout,
  type StorageType,
} from './contract.ts'
import { toStorage } from './storage.ts'

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
  readonly layout?: RowLayout
  /** Rows are listed backwards. */
  readonly gathers?: boolean
  /** Rows lie in pages of this size, in any order, in a pool with more pages; `shared`: one table for all heads. */
  readonly pageSize?: number
  readonly bias?: 'none' | 'random' | 'some-hidden' | 'all-hidden'
  /** Factor on q: large ones make logits of hundreds. */
  readonly queryScale?: number
  readonly queryStorage?: StorageType
  /** Positions of the rows, consecutive over all segments so that the last row is at the last query, or as a list. */
  readonly positions?: 'consecutive' | 'listed'
  readonly left?: number
  readonly right?: number
  readonly sinks?: number
  readonly softcap?: number
  readonly alibi?: boolean
  /** Learned sinks; `some`: -Infinity for the first head. */
  readonly sinkLogits?: 'all' | 'some'
  readonly mask?: 'allow' | 'add' | 'hide-by-head'
  readonly rotation?: 'half' | 'interleaved'
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
  ...formShapes(),
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

/** Every form of attention, for one query and for tiles of them. */
function formShapes(): AttendShape[] {
  const forms: Record<string, Partial<AttendShape>> = {
    bf16: { storage: 'bf16' },
    'bf16 queries': { storage: 'bf16', queryStorage: 'bf16', headDim: 111, valueDim: 59 },
    'f16 queries': { storage: 'f16', queryStorage: 'f16', headDim: 40, valueDim: 13 },
    'causal by position': { positions: 'consecutive', right: 0 },
    'window by position': { positions: 'consecutive', left: 19, right: 0, storage: 'f16' },
    'window and sinks': { positions: 'consecutive', left: 11, right: 0, sinks: 3 },
    'window to both sides': { positions: 'consecutive', left: 7, right: 4 },
    'window, listed positions': { positions: 'listed', left: 23, right: 0, sinks: 2 },
    'window of one': { positions: 'consecutive', left: 0, right: 0 },
    'soft cap': { softcap: 2.5, bias: 'random' },
    'soft cap, huge logits': { softcap: 30, queryScale: 300 },
    alibi: { positions: 'consecutive', right: 0, alibi: true },
    'alibi, listed positions': { positions: 'listed', alibi: true, storage: 'f16' },
    'learned sinks': { sinkLogits: 'all' },
    'learned sinks, all hidden': { sinkLogits: 'some', bias: 'all-hidden' },
    'boolean mask': { mask: 'allow' },
    'additive mask': { mask: 'add', visibility: 'causal' },
    'mask by head': { mask: 'hide-by-head', storage: 'f16' },
    'everything at once': {
      ...{ positions: 'consecutive', left: 40, right: 0, sinks: 4, softcap: 8, alibi: true, sinkLogits: 'all' },
      ...{ mask: 'add', bias: 'some-hidden', rotation: 'half', queryStorage: 'bf16', storage: 'bf16' },
    },
    rotated: { rotation: 'half' },
    'rotated, interleaved': { rotation: 'interleaved', headDim: 37 },
    'pages of 16': { pageSize: 16, layout: 'shared', storage: 'f16' },
    'pages of 5, shared table': { pageSize: 5, layout: 'token-major', positions: 'consecutive', right: 0 },
    'page of one': { pageSize: 1, layout: 'shared', bias: 'some-hidden', visibility: 'random' },
    'pool, gathered': { layout: 'shared', gathers: true },
  }
  const sizes = { segments: [70, 33], numHeads: 6, numKvHeads: 2, headDim: 64 } as const
  return Object.entries(forms).flatMap(([name, form]) => [
    { ...sizes, name: `${name}, one query`, numTokens: 1, ...form },
    { ...sizes, name: `${name}, tile`, numTokens: 33, ...form },
  ])
}

const firstQuery = 1000

/** Inputs of a case. Storage that no query may look at holds NaN. */
export function createAttendCase(shape: AttendShape, seed: number): AttendArgs {
  const { numTokens, numHeads, numKvHeads, headDim, valueDim = headDim, queryStorage = 'f32' } = shape
  const random = createRandom(seed)
  const total = shape.segments.reduce((a, b) => a + b, 0)
  let before = 0
  const segments = shape.segments.map((rows, n) => {
    const place = { isLast: n === shape.segments.length - 1, position: firstQuery + numTokens - total + before }
    before += rows
    return createSegment(shape, rows, place, random)
  })
  const perHead = (lowest: number): Float32Array => Float32Array.from({ length: numHeads }, () => lowest + random())
  return {
    query: toStorage(normal(random, numTokens * numHeads * headDim, shape.queryScale), queryStorage),
    output: toStorage(new Float32Array(numTokens * numHeads * valueDim).fill(Number.NaN), queryStorage),
    queryStorage,
    lse: new Float32Array(numTokens * numHeads).fill(Number.NaN),
    numTokens,
    numHeads,
    numKvHeads,
    headDim,
    valueDim,
    scale: 1 / Math.sqrt(headDim),
    firstPosition: firstQuery,
    ...pick(shape, ['left', 'right', 'sinks', 'softcap']),
    alibiSlopes: shape.alibi ? perHead(0.01) : undefined,
    sinkLogits: shape.sinkLogits && perHead(0).fill(Number.NEGATIVE_INFINITY, 0, shape.sinkLogits === 'some' ? 1 : 0),
    rotation: shape.rotation && createRotation(shape, random),
    segments,
  }
}

function pick<T extends object, N extends keyof T>(from: T, names: readonly N[]): Partial<Pick<T, N>> {
  const given = names.filter((name) => from[name] !== undefined)
  return Object.fromEntries(given.map((name) => [name, from[name]])) as Partial<Pick<T, N>>
}

function createRotation({ numTokens, headDim, rotation }: AttendShape, random: () => number) {
  const rotaryPairs = Math.floor(headDim / 3)
  const angles = normal(random, numTokens * rotaryPairs, 3)
  return {
    cos: angles.map(Math.cos),
    sin: angles.map(Math.sin),
    rotaryPairs,
    isInterleaved: rotation === 'interleaved',
  }
}

function createSegment(
  shape: AttendShape,
  rows: number,
  { isLast, position }: { isLast: boolean; position: number },
  random: () => number,
): KeyValueSegment {
  const { numKvHeads: K, numTokens, headDim, valueDim = headDim, visibility = 'all', bias = 'none' } = shape
  const { gathers, layout = 'head-major', storage = 'f32', positions, pageSize } = shape
  const capacity = rows + 5
  const lengths = Int32Array.from({ length: K }, (_, k) => Math.max(0, rows - (k % 3)))
  const births = new Int32Array(K * capacity).fill(-NEVER)
  const deaths = new Int32Array(K * capacity).fill(NEVER)
  const biases = normal(random, K * capacity)
  for (let k = 0; k < K; k++) {
    for (let j = 0; j < capacity; j++) {
      const at = k * capacity + j
      if (isLast && visibility !== 'all') births[at] = firstQuery + j
      if (visibility === 'window') deaths[at] = (isLast ? firstQuery + j : firstQuery + j - rows) + 48
      if (visibility === 'random') deaths[at] = firstQuery + Math.floor(random() * (numTokens + 1) * 1.2)
      if (bias === 'all-hidden' || (bias === 'some-hidden' && random() < 0.3)) biases[at] = Number.NEGATIVE_INFINITY
    }
  }
  const tables = pageSize ? createPages(layout, pageSize, K, capacity, random) : undefined
  const segment = {
    ...{ capacity, lengths, layout, storage },
    bias: bias === 'none' ? undefined : biases,
    births: visibility === 'all' ? undefined : births,
    deaths: visibility === 'all' || visibility === 'causal' ? undefined : deaths,
    rows: gathers ? Int32Array.from({ length: K * capacity }, (_, i) => capacity - 1 - (i % capacity)) : undefined,
    ...tables?.pages,
    firstPosition: positions === 'consecutive' ? position : undefined,
    positions:
      positions === 'listed'
        ? Int32Array.from({ length: K * capacity }, (_, i) => position + (((i % capacity) * 7) % capacity))
        : undefined,
    mask: shape.mask && createMask(shape, capacity, random),
  }
  const storedRows = tables ? tables.numRows : layout === 'shared' ? capacity : K * capacity
  const used = usedRows(shape, segment, storedRows)
  const store = (dim: number) =>
    toStorage(
      normal(random, storedRows * dim).map((value, i) => (used.has(Math.floor(i / dim)) ? value : Number.NaN)),
      storage,
    )
  return { ...segment, keys: store(headDim), values: store(valueDim) }
}

/** Page tables in any order over a pool of twice as many pages; `token-major` pools hold the rows of all heads. */
function createPages(layout: RowLayout, pageSize: number, K: number, capacity: number, random: () => number) {
  const tables = layout === 'shared' ? K : 1
  const perTable = Math.ceil(capacity / pageSize)
  const numPages = 2 * tables * perTable
  const order = Int32Array.from({ length: numPages }, (_, i) => i).sort(() => random() - 0.5)
  const pages = { pages: order.subarray(0, tables * perTable), pageSize, pagesStride: tables > 1 ? perTable : 0 }
  return { pages, numRows: numPages * pageSize * (layout === 'shared' ? 1 : K) }
}

function createMask({ mask, numHeads, numTokens }: AttendShape, capacity: number, random: () => number): LogitMask {
  const byHead = mask === 'hide-by-head'
  const tokenStride = capacity
  const headStride = byHead ? numTokens * capacity : 0
  const length = (byHead ? numHeads : 1) * numTokens * capacity
  const allowed = Uint8Array.from({ length }, () => (random() < 0.7 ? 1 : 0))
  if (mask === 'allow') return { values: allowed, headStride, tokenStride }
  const values = normal(random, length).map((value, i) => (allowed[i] ? value : Number.NEGATIVE_INFINITY))
  return { values, headStride, tokenStride }
}

/** Rows of storage, in the order of memory, that some query of the case looks at. */
function usedRows(shape: AttendShape, segment: Omit<KeyValueSegment, 'keys' | 'values'>, numRows: number): Set<number> {
  const { numKvHeads: K, numTokens } = shape
  const { capacity, lengths, births, deaths, bias, rows, pages, pageSize = 1, pagesStride = 0, layout } = segment
  const used = new Set<number>()
  for (let k = 0; k < K; k++) {
    for (let j = 0; j < (lengths[k] as number); j++) {
      const page = pages?.[k * pagesStride + Math.floor(j / pageSize)]
      const row = rows?.[k * capacity + j] ?? (page === undefined ? j : page * pageSize + (j % pageSize))
      const at = k * capacity + (rows ? row : j)
      const isSeen = (births?.[at] ?? -NEVER) < firstQuery + numTokens && (deaths?.[at] ?? NEVER) > firstQuery
      if (!isSeen || bias?.[at] === Number.NEGATIVE_INFINITY) continue
      used.add(layout === 'shared' ? row : layout === 'token-major' ? row * K + k : k * capacity + row)
    }
  }
  if (used.size > numRows) throw new Error('a case uses more rows than it stores')
  return used
}

/** From bytes or tokens to the rows of each layer: the one place where budgets are worked out. */
import type { CacheOptions, CacheShape, LayerShape } from '../cache/contract.ts'
import { boundedTypes, bytesOfRow, residualTypes, rowTypesOf } from '../cache/storage/row-types.ts'
import { invalidArgument } from '../tensor/error.ts'
import type { ChosenPolicy } from './choice.ts'
import { pyramidBudgets } from './pyramidkv.ts'
import { planRecall } from './recall.ts'

/** Most rows a head: row numbers are 32-bit and a window beyond this is a mistake. */
export const maxWindow = 1 << 24

/** The last layer of a pyramid keeps at least this many rows, or there is no pyramid. */
const leastOfPyramid = 64

export interface Plan {
  /** W */
  readonly window: number
  /** `[L]` */
  readonly windows: readonly number[]
}

/**
 * The rows of each layer for W: its own window where that is smaller, or the layer's place in a pyramid.
 */
function windowsFor(window: number, shape: CacheShape, { isPyramid }: ChosenPolicy): number[] {
  const own = shape.layers.map((layer) => layer.window ?? Number.POSITIVE_INFINITY)
  const open = shape.layers.flatMap((layer, index) => (layer.window === undefined ? [index] : []))
  const windows = own.map((most) => Math.min(most, window))
  if (!isPyramid) return windows
  const least = Math.min(leastOfPyramid, Math.max(1, Math.floor(window / 20)))
  const budgets = pyramidBudgets({ budget: window, numLayers: open.length, least })
  for (const [n, index] of open.entries()) windows[index] = budgets[n] as number
  return windows
}

interface Facts {
  readonly hasBias: boolean
  /** Absent: contiguous. */
  readonly pageSize: number | undefined
  /** Heads share their budget. */
  readonly isShared: boolean
  /** Rows are ranked anew from time to time. */
  readonly isRanked: boolean
}

/** Bytes of K, V and importance that one layer with W rows a head takes at most. */
function layerBytes(
  { numKvHeads, headDim, valueDim }: LayerShape,
  window: number,
  options: CacheOptions,
  { hasBias, pageSize, isShared, isRanked }: Facts,
): number {
  const types = boundedTypes(rowTypesOf(options), window)
  const shape = { headDim, valueDim, hasOriginals: options.positions === 'rank' }
  const whole = (rows: number) => (pageSize ? Math.ceil(rows / pageSize) * pageSize : rows)
  // A cache that ranks rows anew has one to spare for the token that comes; pages come and go.
  let rows = window + (isRanked ? 1 : 0)
  if (pageSize) rows = isShared ? window + pageSize - 1 : whole(window)
  const copies = whole(types.residual) * bytesOfRow({ ...shape, ...residualTypes(types) })
  return numKvHeads * (rows * bytesOfRow({ ...shape, ...types }) + copies + (hasBias ? 4 * window : 0))
}

/**
 * @throws KvasirError `invalid-argument` when not even one row a head, or what is protected, fits the bytes
 */
export function planWindows(
  shape: CacheShape,
  options: CacheOptions,
  policy: ChosenPolicy,
  { least, isPaged }: { readonly least: number; readonly isPaged: boolean },
): Plan | undefined {
  const { window, kvBudget, pageSize = options.pool?.pageSize ?? 16 } = options
  const kind = policy.entry.retention?.(options, { window: 1, sinks: 0, recent: 0 }).kind
  const isRanked = kind === 'rescoring' || policy.sharesHeads || options.leastWindow !== undefined
  const facts = {
    hasBias: shape.hasImportance,
    pageSize: isPaged ? pageSize : undefined,
    isShared: policy.sharesHeads,
    isRanked,
  }
  if (kvBudget === undefined) {
    return window === undefined ? undefined : { window, windows: windowsFor(window, shape, policy) }
  }
  const recalled = planRecall(shape, options)?.bytes ?? 0
  const bytesAt = (rows: number) =>
    windowsFor(rows, shape, policy).reduce((sum, own, index) => {
      return sum + layerBytes(shape.layers[index] as LayerShape, own, options, facts)
    }, recalled)
  let low = 0
  let high = window ?? maxWindow
  while (low < high) {
    const middle = Math.ceil((low + high) / 2)
    if (bytesAt(middle) <= kvBudget) low = middle
    else high = middle - 1
  }
  if (low < Math.max(1, least)) {
    const needed = bytesAt(Math.max(1, least))
    throw invalidArgument(
      'cache',
      `expected a kvBudget of at least ${needed} bytes for ${least} ${least === 1 ? 'token' : 'tokens'}, got ${kvBudget}`,
    )
  }
  return { window: low, windows: windowsFor(low, shape, policy) }
}

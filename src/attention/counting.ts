/**
 * What attention costs, counted: multiplications and FLOPs. Formulas only, exact integers, nothing is measured. Softmax,
 * scale and mask are left out, as is usual: they are O(T S) beside O(T S D).
 *
 * T query tokens, S keys, H query heads, D dim of q and k, E dim of v:
 *
 *     pairs    T S without a mask; with one, the query-key pairs that the mask leaves
 *     scores   H pairs D multiplications (q . k)
 *     outputs  H pairs E multiplications (p v)
 *     FLOPs    2 (scores + outputs): each multiplication comes with an addition
 *
 * KV heads don't matter here: G query heads share the bytes of a KV head, not its arithmetic.
 */
import { checkInteger, checkKeys, describe } from '../tensor/check.ts'
import { invalidArgument } from '../tensor/error.ts'

export interface AttentionPairsOptions {
  /** T: query tokens. */
  readonly numTokens: number
  /** S: keys, old and new ones; the queries are the last T of them (bottom-right alignment). */
  readonly numKeys: number
  /** Query t sees keys up to t + S - T (default false: all). */
  readonly causal?: boolean
  /** W: of the keys that a query may see it sees at most so many, the newest or the most important (default: all). */
  readonly window?: number
}

export interface AttentionFlopsOptions extends AttentionPairsOptions {
  /** H: query heads. */
  readonly numHeads: number
  /** D: of a query and a key. */
  readonly headDim: number
  /** E: of a value (default D). */
  readonly valueDim?: number
}

/** Multiplications, and FLOPs: two for each. */
export interface Work {
  readonly multiplications: number
  readonly flops: number
}

export interface AttentionWork {
  /** q . k */
  readonly scores: Work
  /** The sum of values by probability. */
  readonly outputs: Work
  readonly total: Work
}

export interface AttentionFlops extends AttentionWork {
  /** The same without `causal` and `window`: what a kernel that skips nothing would do. */
  readonly dense: AttentionWork
  /** Useful over dense work, 0..1: about a half when causal and T = S. */
  readonly usefulShare: number
}

const pairKeys = ['numTokens', 'numKeys', 'causal', 'window']

/**
 * Query-key pairs of one head that causality and the window leave. Without either T S; causal with T = S: T (T + 1) / 2;
 * with a window each query adds min(W, what it may see).
 * @throws KvasirError `invalid-argument`: no integers, unknown options, 2^53 pairs or more
 */
export function attentionPairs(options: AttentionPairsOptions): number {
  checkKeys('attention', 'attentionPairs', options, pairKeys)
  const { numTokens, numKeys, causal = false, window = numKeys } = options
  checkInteger('attention', 'numTokens', numTokens, 0)
  checkInteger('attention', 'numKeys', numKeys, 0)
  checkInteger('attention', 'window', window, options.window === undefined ? 0 : 1)
  if (typeof causal !== 'boolean') {
    throw invalidArgument('attention', `expected true or false for causal, got ${describe(causal)}`)
  }
  if (!causal) return exactProduct('pairs', numTokens, Math.min(window, numKeys))
  // Queries before the first key see nothing. The others see first, first + 1, ..., S keys, each at most W.
  const seeing = Math.min(numTokens, numKeys)
  const first = numKeys - seeing + 1
  if (window <= first) return exactProduct('pairs', seeing, Math.min(window, numKeys))
  const growing = Math.min(window, numKeys) - first + 1
  return exactSum('pairs', series(first, growing), exactProduct('pairs', seeing - growing, window))
}

/**
 * Multiplications and FLOPs of attention for one sequence and one layer.
 *
 * One decode step with a cache: T = 1 and S = N. The same step without a cache: T = S = N. With N = 512, D = 64 and
 * E = 128 a head's scores take 32,768 multiplications against 16,777,216, its outputs 65,536 against 33,554,432.
 * @throws KvasirError `invalid-argument`: no integers, unknown options, a count of 2^53 or more (it would not be exact)
 */
export function attentionFlops(options: AttentionFlopsOptions): AttentionFlops {
  checkKeys('attention', 'attentionFlops', options, [...pairKeys, 'numHeads', 'headDim', 'valueDim'])
  const { numTokens, numKeys, causal, window, numHeads, headDim, valueDim = headDim } = options
  for (const [name, value] of Object.entries({ numHeads, headDim, valueDim })) checkInteger('attention', name, value, 1)
  const count = (pairs: number): AttentionWork => {
    const scores = work('scores', exactProduct('scores', numHeads, pairs, headDim))
    const outputs = work('outputs', exactProduct('outputs', numHeads, pairs, valueDim))
    return { scores, outputs, total: work('total', scores.multiplications + outputs.multiplications) }
  }
  const useful = count(attentionPairs({ numTokens, numKeys, causal, window }))
  const dense = count(attentionPairs({ numTokens, numKeys }))
  const all = dense.total.multiplications
  return { ...useful, dense, usefulShare: all === 0 ? 1 : useful.total.multiplications / all }
}

function work(name: string, multiplications: number): Work {
  return { multiplications, flops: exactProduct(`FLOPs (${name})`, 2, multiplications) }
}

/** first + (first + 1) + ..., `count` terms; halved before the product, so that only a sum too large is too large. */
function series(first: number, count: number): number {
  const ends = 2 * first + count - 1
  return count % 2 === 0 ? exactProduct('pairs', count / 2, ends) : exactProduct('pairs', count, ends / 2)
}

/**
 * The product of integers of at least 0, exact.
 * @throws KvasirError `invalid-argument` from 2^53 on. Rounding is monotonic, so a product that is too large never
 * rounds to one that is not.
 */
export function exactProduct(name: string, ...factors: readonly number[]): number {
  return exact(
    name,
    factors.reduce((product, factor) => product * factor, 1),
  )
}

/** The sum of integers of at least 0; as `exactProduct`. */
export function exactSum(name: string, ...terms: readonly number[]): number {
  return exact(
    name,
    terms.reduce((sum, term) => sum + term, 0),
  )
}

function exact(name: string, value: number): number {
  if (value <= Number.MAX_SAFE_INTEGER) return value
  throw invalidArgument(
    'attention',
    `expected sizes that give less than 2^53 for ${name}, got ${value.toExponential(2)}`,
  )
}

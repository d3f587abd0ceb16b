/** A page of P tokens of all KV heads of a layer, as it is remembered while its rows are elsewhere. */
import type { LayerShape } from '../contract.ts'
import type { RowFacts } from '../storage/row-store.ts'
import { pageTokens } from './page-bytes.ts'

/** What forks share of a page. */
export interface Page {
  /** Its first position over P. */
  readonly number: number
  /** `[K]`: what its rows are found by in the tiers. */
  readonly keys: readonly string[]
  /** `[K, P]`: added to the logits; -Infinity: a token that is passed over. Absent for models without importance. */
  readonly bias: Float32Array | undefined
  /** `[K]`: not to be asked for before so many tokens were seen, since the rows of the head were not to be had. */
  readonly askAgain: Float64Array
  /** Archives that remember it. */
  holders: number
}

/** A page and what one cache still has of it. */
export interface RememberedPage {
  readonly page: Page
  /** `[K]`: a bit for each token that the head holds. */
  readonly kept: Uint16Array
}

const allKept = (1 << pageTokens) - 1

/** The most that is added to the logits of a token that may come back; -Infinity where there is none. */
export function mostBias({ page, kept }: RememberedPage, head: number): number {
  const bits = kept[head] as number
  if (bits === allKept) return Number.NEGATIVE_INFINITY
  if (!page.bias) return 0
  let most = Number.NEGATIVE_INFINITY
  for (let place = 0; place < pageTokens; place++) {
    if ((bits >> place) & 1) continue
    most = Math.max(most, page.bias[head * pageTokens + place] as number)
  }
  return most
}

interface Sizes {
  /** C: rows of a head. */
  readonly capacity: number
  /** `[K]`: rows in use. */
  readonly lengths: Int32Array
  /** Tokens so far, the query among them. */
  readonly seen: number
  readonly shape: LayerShape
  /** `[K, C]`, to be written. */
  readonly bias: Float32Array
}

/**
 * What attention is told of rows of pages, the n-th of a head from row n P on: those that the cache holds are hidden, since
 * it attends to them itself.
 */
export function factsOf(
  { capacity, lengths, seen, shape, bias }: Sizes,
  entryAt: (head: number, n: number) => { page: Pick<Page, 'number' | 'bias'>; kept: Uint16Array },
): RowFacts {
  const positions = shape.alibiSlopes && new Int32Array(lengths.length * capacity)
  for (let k = 0; k < lengths.length; k++) {
    for (let first = 0; first < (lengths[k] as number); first += pageTokens) {
      const { page, kept } = entryAt(k, first / pageTokens)
      const [bits, own] = [kept[k] as number, page.bias]
      const count = Math.min(pageTokens, (lengths[k] as number) - first)
      for (let place = 0, at = k * capacity + first; place < count; place++, at++) {
        const isKept = (bits >> place) & 1
        bias[at] = isKept ? Number.NEGATIVE_INFINITY : own ? (own[k * pageTokens + place] as number) : 0
        if (positions) positions[at] = page.number * pageTokens + place - (seen - 1)
      }
    }
  }
  return { bias, ...(positions && { positions }), origin: seen - 1 }
}

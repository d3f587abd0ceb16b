/** The rows of pages as opaque bytes, out of a store and into one: a page of a head is its keys, then its values. */
import type { RowStore } from '../row-store.ts'
import type { StateVisitor } from '../snapshot/state.ts'

/** P: tokens of a page, as in Quest. */
export const pageTokens = 16

/** Keys and values of the first P rows of a head. */
export function pageOf(store: RowStore, head: number, numKvHeads: number): Uint8Array[] {
  const parts: Uint8Array[] = []
  visitPage(store, { head, numKvHeads, n: 0 }, (rows) => parts.push(rows.slice()), false)
  return parts
}

/** Makes a page the n-th one of a head: rows n P to before (n + 1) P. */
export function fillPage(store: RowStore, place: PagePlace, page: Uint8Array): void {
  let offset = 0
  const fill = (rows: Uint8Array): void => {
    rows.set(page.subarray(offset, offset + rows.length))
    offset += rows.length
  }
  visitPage(store, place, fill, true)
}

interface PagePlace {
  readonly head: number
  readonly numKvHeads: number
  readonly n: number
}

function visitPage(
  store: RowStore,
  { head, numKvHeads, n }: PagePlace,
  bytes: (rows: Uint8Array) => void,
  isReading: boolean,
): void {
  const lengths = new Int32Array(numKvHeads).fill(n * pageTokens)
  lengths[head] = (n + 1) * pageTokens
  const visitor: StateVisitor = {
    ...{ isReading, bytes, fixed() {}, expect() {}, numbers() {}, integers() {}, integer: (_, value) => value },
  }
  store.visitRows(visitor, lengths, n * pageTokens)
}

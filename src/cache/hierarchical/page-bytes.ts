/** The rows of pages as opaque bytes: a page of a head is its keys, then its values. */

import type { StateVisitor } from '../snapshot/state.ts'
import type { RowStore } from '../storage/row-store.ts'

/** P: tokens of a page, as in Quest. */
export const pageTokens = 16

/** Keys and values of the first P rows of a head: views, good until something is written or allocated. */
export function pageOf(store: RowStore, head: number, numKvHeads: number): Uint8Array[] {
  const parts: Uint8Array[] = []
  const lengths = new Int32Array(numKvHeads)
  lengths[head] = pageTokens
  const bytes = (rows: Uint8Array): void => void parts.push(rows)
  const visitor: StateVisitor = {
    ...{ isReading: false, bytes, fixed() {}, expect() {}, numbers() {}, integers() {}, integer: (_, value) => value },
  }
  store.visitRows(visitor, lengths)
  return parts
}

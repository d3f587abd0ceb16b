/** The rows of pages as opaque bytes, out of a store and into one: a page of a head is its keys, then its values. */
import type { RowStore } from '../row-store.ts'
import type { StateVisitor } from '../snapshot/state.ts'

/** P: tokens of a page, as in Quest. */
export const pageTokens = 16

/** Keys and values of the first P rows of a head. */
export function pageOf(store: RowStore, head: number, numKvHeads: number): Uint8Array[] {
  const lengths = new Int32Array(numKvHeads)
  lengths[head] = pageTokens
  const parts: Uint8Array[] = []
  store.visitRows(
    rowVisitor(false, (rows) => parts.push(rows.slice())),
    lengths,
  )
  return parts
}

/** Puts pages of each head into the store's first rows. The pages of a head have one size. */
export function fillPages(store: RowStore, pages: readonly (readonly Uint8Array[])[]): Int32Array {
  const lengths = Int32Array.from(pages, (own) => own.length * pageTokens)
  const heads = pages.filter((own) => own.length > 0)
  const offsets = heads.map(() => 0)
  let call = 0
  // Rows of a store of its own lie side by side: one piece a plane and head, plane after plane.
  const fill = (rows: Uint8Array): void => {
    const n = call++ % heads.length
    const own = heads[n] as readonly Uint8Array[]
    const offset = offsets[n] as number
    const size = rows.length / own.length
    for (const [i, page] of own.entries()) rows.set(page.subarray(offset, offset + size), i * size)
    offsets[n] = offset + size
  }
  if (heads.length > 0) store.visitRows(rowVisitor(true, fill), lengths)
  return lengths
}

function rowVisitor(isReading: boolean, bytes: (rows: Uint8Array) => void): StateVisitor {
  return { isReading, bytes, fixed() {}, expect() {}, numbers() {}, integers() {}, integer: (_, value) => value }
}

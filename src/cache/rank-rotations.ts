/**
 * Rotations of positions by rank. Ranks stay below a few windows (position-axis.ts) and the same ones come back at every
 * step, in every layer and sequence: cosines and sines are made once for each, in one table that kernels read.
 */
import type { LayerRotary } from './contract.ts'

/** Of the numbers from `first` on. */
export interface RankTable {
  readonly first: number
  /** N */
  readonly size: number
  /** `[N, R]` */
  readonly cos: Float32Array
  readonly sin: Float32Array
  /** `[N]`: rows are made when first wanted, since a table of the encoding may end. */
  readonly isThere: Uint8Array
}

/** What is remembered of one encoding and length at most; for numbers beyond there is a table by the way. */
const mostBytes = 16 * 2 ** 20
const leastRows = 64

/** By what makes them, which the layers of a model that are turned alike share, and the length that this is told. */
const remembered = new WeakMap<LayerRotary['fill'], Map<number, RankTable>>()

/** A table with the rotations of whole numbers from 0 on. */
export function ranksOf(rotary: LayerRotary, numbers: ArrayLike<number>, length: number): RankTable {
  let [least, greatest] = [Number.POSITIVE_INFINITY, 0]
  for (let n = 0; n < numbers.length; n++) {
    least = Math.min(least, numbers[n] as number)
    greatest = Math.max(greatest, numbers[n] as number)
  }
  const most = Math.floor(mostBytes / (8 * rotary.pairs))
  const table =
    greatest < most
      ? rememberedTable(rotary, length, greatest + 1)
      : createTable(rotary.pairs, greatest - least + 1, least)
  for (let n = 0; n < numbers.length; n++) {
    const row = (numbers[n] as number) - table.first
    if (!table.isThere[row]) fillRow(rotary, table, row, length)
  }
  return table
}

function fillRow(rotary: LayerRotary, { first, cos, sin, isThere }: RankTable, row: number, length: number): void {
  const [from, to] = [row * rotary.pairs, (row + 1) * rotary.pairs]
  rotary.fill([first + row], length, cos.subarray(from, to), sin.subarray(from, to))
  isThere[row] = 1
}

function rememberedTable({ fill, pairs }: LayerRotary, length: number, size: number): RankTable {
  const byLength = remembered.get(fill) ?? new Map<number, RankTable>()
  remembered.set(fill, byLength)
  const known = byLength.get(length)
  if (known && known.size >= size) return known
  const table = createTable(pairs, Math.max(leastRows, size, 2 * (known?.size ?? 0)), 0)
  if (known) {
    table.cos.set(known.cos)
    table.sin.set(known.sin)
    table.isThere.set(known.isThere)
  }
  byLength.set(length, table)
  return table
}

function createTable(pairs: number, size: number, first: number): RankTable {
  const [cos, sin] = [new Float32Array(size * pairs), new Float32Array(size * pairs)]
  return { first, size, cos, sin, isThere: new Uint8Array(size) }
}

/**
 * Rotations of positions by rank. Ranks stay below a few windows (position-axis.ts) and the same ones come back at every
 * step, in every layer and sequence: cosines and sines are made once for each.
 */
import type { LayerRotary } from './contract.ts'

/** Of numbers one after the other, made when first wanted: a table may end within a block. */
interface Block {
  /** `[blockRows, R]` */
  readonly cos: Float32Array
  readonly sin: Float32Array
  readonly isThere: Uint8Array
}

const blockRows = 64

/** What is remembered of one encoding and length at most; further numbers are worked out each time. */
const mostBytes = 16 * 2 ** 20

/** By what makes them, which the layers of a model that are turned alike share, and the length that this is told. */
const remembered = new WeakMap<LayerRotary['fill'], Map<number, Block[]>>()

/**
 * As `rotary.fill`, for whole numbers from 0 on.
 * @param cos out `[T, R]`
 * @param sin out `[T, R]`
 */
export function fillRanks(
  rotary: LayerRotary,
  numbers: Float64Array,
  length: number,
  cos: Float32Array,
  sin: Float32Array,
): void {
  const { pairs } = rotary
  const blocks = blocksOf(rotary, length)
  const most = Math.floor(mostBytes / (8 * pairs * blockRows))
  for (let t = 0; t < numbers.length; t++) {
    const number = numbers[t] as number
    const index = Math.floor(number / blockRows)
    const to = t * pairs
    if (index >= most) {
      rotary.fill([number], length, cos.subarray(to, to + pairs), sin.subarray(to, to + pairs))
      continue
    }
    const block = blocks[index] ?? createBlock(pairs)
    blocks[index] = block
    const row = number % blockRows
    const [ownCos, ownSin] = [part(block.cos, row, pairs), part(block.sin, row, pairs)]
    if (!block.isThere[row]) rotary.fill([number], length, ownCos, ownSin)
    block.isThere[row] = 1
    cos.set(ownCos, to)
    sin.set(ownSin, to)
  }
}

function blocksOf({ fill }: LayerRotary, length: number): Block[] {
  const byLength = remembered.get(fill) ?? new Map<number, Block[]>()
  const blocks = byLength.get(length) ?? []
  remembered.set(fill, byLength.set(length, blocks))
  return blocks
}

function createBlock(pairs: number): Block {
  const size = blockRows * pairs
  return { cos: new Float32Array(size), sin: new Float32Array(size), isThere: new Uint8Array(blockRows) }
}

function part(table: Float32Array, row: number, pairs: number): Float32Array {
  return table.subarray(row * pairs, (row + 1) * pairs)
}

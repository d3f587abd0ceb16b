/** Cumulative lengths: sequence b of a list that lies end to end has the tokens offsets[b] to offsets[b + 1] - 1. */
import { checkInteger } from '../tensor/check.ts'
import { invalidArgument } from '../tensor/error.ts'
import { integerList } from './lists.ts'

/**
 * @param length null takes any
 * @param total what the last must be; undefined: anything
 * @param longest `[its name, what no sequence may exceed]`, where it was given
 */
export function readOffsets(
  name: string,
  list: unknown,
  length: number | null,
  total: number | undefined,
  [longestName, longest]: readonly [name: string, longest: unknown],
): Int32Array {
  const offsets = integerList(name, list, length, { max: total ?? 2 ** 31 - 2 })
  if (offsets.length === 0 || offsets[0] !== 0) {
    throw invalidArgument('attention', `expected 0 at the start of ${name}, got ${offsets[0] ?? 'nothing'}`)
  }
  const bad = offsets.findIndex((offset, i) => i > 0 && offset < (offsets[i - 1] as number))
  if (bad > 0) {
    const [before, offset] = offsets.subarray(bad - 1)
    throw invalidArgument('attention', `expected ${name} to grow, got ${offset} after ${before}`)
  }
  if (total !== undefined && offsets.at(-1) !== total) {
    throw invalidArgument(
      'attention',
      `expected ${name} to end at ${total}, the tokens that came, got ${offsets.at(-1)}`,
    )
  }
  checkLongest(longestName, longest, offsets)
  return offsets
}

function checkLongest(name: string, longest: unknown, offsets: Int32Array): void {
  if (longest === undefined) return
  checkInteger('attention', name, longest, 0)
  const came = longestOf(offsets)
  if (came > longest)
    throw invalidArgument('attention', `expected sequences of at most ${name} = ${longest}, got ${came}`)
}

/** `[B]` */
export function lengthsOf(offsets: Int32Array): Int32Array {
  return offsets.subarray(1).map((offset, i) => offset - (offsets[i] as number))
}

/** Tokens of the longest sequence. */
export function longestOf(offsets: Int32Array): number {
  return lengthsOf(offsets).reduce((a, b) => Math.max(a, b), 0)
}

/** Where sequence b begins, and its tokens. */
export function sequenceAt(offsets: Int32Array, b: number): { readonly first: number; readonly count: number } {
  const first = offsets[b] as number
  return { first, count: (offsets[b + 1] as number) - first }
}

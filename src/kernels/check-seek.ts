/** The checks of `seek`, for backends that can't check by themselves, as the addon makes them. */
import { checkInteger } from '../tensor/check.ts'
import { arrayTypeOf, atLeast, count, dimension, invalid, maxCount } from './check-values.ts'
import type { SeekArgs } from './contract.ts'
import { rowLength, storageOf } from './storage.ts'

export function checkSeek(args: SeekArgs): void {
  const { query, bounds, bias, numHeads, numKvHeads, headDim, scale, capacity, numRows, most, rows, lengths } = args
  for (const [name, value] of Object.entries({ numHeads, numKvHeads, headDim })) dimension(name, value)
  if (!Number.isFinite(Math.fround(scale))) throw invalid(`a finite number for scale, got ${scale}`)
  count('capacity', capacity)
  checkInteger('kernels', 'numRows', numRows, 0, capacity)
  checkInteger('kernels', 'most', most, 1, maxCount)
  if (numHeads % numKvHeads !== 0) {
    throw invalid(`numHeads to be a multiple of numKvHeads, got ${numHeads} and ${numKvHeads}`)
  }
  const storage = storageOf(bounds, args.storage)
  atLeast('query', Float32Array, query, numHeads * headDim)
  atLeast('bounds', arrayTypeOf(storage), bounds, numKvHeads * capacity * rowLength(2 * headDim, storage))
  atLeast('bias', Float32Array, bias, numKvHeads * capacity)
  atLeast('rows', Int32Array, rows, numKvHeads * most)
  atLeast('lengths', Int32Array, lengths, numKvHeads)
}

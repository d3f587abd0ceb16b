/** The checks of ops that store, turn and choose rows, for backends that can't check by themselves, as the addon makes them. */
import { checkChoice, checkInteger } from '../tensor/check.ts'
import { arrayTypeOf, atLeast, checkRotation, count, dimension, invalid, maxCount, within } from './check-values.ts'
import type { KeepArgs, RetainArgs, RotateArgs, RowTarget, SelectArgs, StoreArgs, TurnArgs } from './contract.ts'
import { rowLength, storageOf } from './storage.ts'

export function checkStore(args: StoreArgs): void {
  const { numTokens, numKvHeads, stride, counts, tokens, slots, targets } = args
  for (const [name, value] of Object.entries({ numTokens, stride })) count(name, value)
  dimension('numKvHeads', numKvHeads)
  checkTargets(targets, numTokens, numKvHeads)
  atLeast('counts', Int32Array, counts, numKvHeads)
  atLeast('tokens', Int32Array, tokens, numKvHeads * stride)
  atLeast('slots', Int32Array, slots, numKvHeads * stride)
  for (let k = 0; k < numKvHeads; k++) {
    checkInteger('kernels', `counts[${k}]`, counts[k], 0, stride)
    within('tokens', tokens, k * stride, counts[k] as number, numTokens)
    for (const { capacity } of targets) within('slots', slots, k * stride, counts[k] as number, capacity)
  }
}

function checkTargets(targets: readonly RowTarget[], numTokens: number, numKvHeads: number): void {
  if (targets.length > 3) throw invalid(`at most 3 targets, got ${targets.length}`)
  for (const target of targets) checkTarget(target, numTokens, numKvHeads)
}

function checkTarget(args: RowTarget, numTokens: number, numKvHeads: number): void {
  const { headDim, layout = 'head-major', capacity } = args
  dimension('headDim', headDim)
  checkChoice('kernels', 'layout', layout, ['head-major', 'token-major', 'shared'])
  count('capacity', capacity)
  const rows = (layout === 'shared' ? 1 : numKvHeads) * capacity
  atLeast('source', Float32Array, args.source, numTokens * numKvHeads * headDim)
  const storage = storageOf(args.target, args.storage)
  atLeast('target', arrayTypeOf(storage), args.target, rows * rowLength(headDim, storage))
  if (args.rotation) checkRotation(args.rotation, numTokens, headDim)
}

export function checkTurn(args: TurnArgs): void {
  const { numTokens, headDim, capacity, rows, turns } = args
  for (const [name, value] of Object.entries({ numTokens, capacity, count: args.count })) count(name, value)
  dimension('headDim', headDim)
  const storage = storageOf(args.target, args.storage)
  for (const name of ['source', 'target'] as const) {
    atLeast(name, arrayTypeOf(storage), args[name], capacity * rowLength(headDim, storage))
  }
  atLeast('rows', Int32Array, rows, args.count)
  atLeast('turns', Int32Array, turns, args.count)
  within('rows', rows, 0, args.count, capacity)
  within('turns', turns, 0, args.count, numTokens)
  checkRotation(args.rotation, numTokens, headDim)
}

export function checkRotate(args: RotateArgs): void {
  const { vectors, numTokens, numHeads, headDim } = args
  count('numTokens', numTokens)
  for (const [name, value] of Object.entries({ numHeads, headDim })) dimension(name, value)
  atLeast('vectors', Float32Array, vectors, numTokens * numHeads * headDim)
  checkRotation(args, numTokens, headDim)
}

export function checkRetain(args: RetainArgs): void {
  const { kept, numTokens, scores, rowDeaths, tokenDeaths, counts, tokens, slots, leftPositions, leftScores } = args
  const { numKvHeads: K, window: W, sinks, recent } = kept
  dimension('numKvHeads', K)
  checkInteger('kernels', 'window', W, 1, maxCount)
  checkInteger('kernels', 'sinks', sinks, 0, W)
  checkInteger('kernels', 'recent', recent, 0, W - sinks)
  checkInteger('kernels', 'numTokens', numTokens, 0, maxCount - W)
  atLeast('kept.scores', Float32Array, kept.scores, K * W)
  atLeast('kept.positions', Float64Array, kept.positions, K * W)
  atLeast('kept.heap', Int32Array, kept.heap, K * W)
  atLeast('kept.accepted', Float64Array, kept.accepted, K)
  for (const name of ['lengths', 'heapLengths'] as const) atLeast(`kept.${name}`, Int32Array, kept[name], K)
  atLeast('kept.ring', Int32Array, kept.ring, K * recent)
  atLeast('scores', Float32Array, scores, numTokens * K)
  if (rowDeaths) atLeast('rowDeaths', Int32Array, rowDeaths, K * W)
  atLeast('tokenDeaths', Int32Array, tokenDeaths, K * numTokens)
  atLeast('counts', Int32Array, counts, K)
  atLeast('tokens', Int32Array, tokens, K * Math.min(numTokens, W))
  atLeast('slots', Int32Array, slots, K * Math.min(numTokens, W))
  if (!leftPositions) return
  atLeast('leftPositions', Float64Array, leftPositions, K * Math.min(numTokens, W))
  atLeast('leftScores', Float32Array, leftScores, K * Math.min(numTokens, W))
}

export function checkKeep(args: KeepArgs): void {
  const { kept, numTokens, targets } = args
  checkRetain(args)
  checkTargets(targets, numTokens, kept.numKvHeads)
  for (const { capacity } of targets) {
    if (capacity < kept.window) throw invalid(`targets of at least ${kept.window} rows, got ${capacity}`)
  }
}

export function checkSelect({ numKvHeads, capacity, numRows, window, scores, rows, lengths }: SelectArgs): void {
  dimension('numKvHeads', numKvHeads)
  count('capacity', capacity)
  checkInteger('kernels', 'numRows', numRows, 0, capacity)
  checkInteger('kernels', 'window', window, 1, maxCount)
  atLeast('scores', Float32Array, scores, numKvHeads * capacity)
  atLeast('rows', Int32Array, rows, numKvHeads * capacity)
  atLeast('lengths', Int32Array, lengths, numKvHeads)
}

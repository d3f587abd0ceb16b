/** The checks of `attend` and `weigh` for backends that can't check by themselves, as the addon makes them. */
import { checkChoice, checkFinite, checkInteger } from '../tensor/check.ts'
import { checkSegment } from './check-segment.ts'
import { arrayTypeOf, atLeast, checkRotation, count, dimension, invalid, maxCount } from './check-values.ts'
import type { AttendArgs, WeighArgs } from './contract.ts'
import { floatTypes, storageOf } from './storage.ts'

export function checkAttend(args: AttendArgs): void {
  const { numTokens, numHeads, numKvHeads, headDim, valueDim, firstPosition, segments, softcap = 0 } = args
  count('numTokens', numTokens)
  for (const [name, value] of Object.entries({ numHeads, numKvHeads, headDim, valueDim })) dimension(name, value)
  if (numHeads % numKvHeads !== 0) {
    throw invalid(`numHeads to be a multiple of numKvHeads, got ${numHeads} and ${numKvHeads}`)
  }
  checkInteger('kernels', 'firstPosition', firstPosition, -maxCount, maxCount - numTokens)
  for (const name of ['left', 'right', 'sinks'] as const) if (args[name] !== undefined) count(name, args[name])
  checkFinite('kernels', 'scale', args.scale)
  checkFinite('kernels', 'softcap', softcap)
  if (softcap < 0) throw invalid(`a softcap of at least 0, got ${softcap}`)
  const rows = numTokens * numHeads
  const queryStorage = storageOf(args.query, args.queryStorage)
  checkChoice('kernels', 'queryStorage', queryStorage, floatTypes)
  const Query = arrayTypeOf(queryStorage)
  atLeast('query', Query, args.query, rows * headDim)
  atLeast('output', Query, args.output, rows * valueDim)
  if (args.lse) atLeast('lse', Float32Array, args.lse, rows)
  if (args.logits) {
    if (segments.length !== 1) throw invalid(`one segment for logits, got ${segments.length}`)
    atLeast('logits', Float32Array, args.logits, rows * (segments[0]?.capacity ?? 0))
  }
  checkPerHead('alibiSlopes', args.alibiSlopes, numHeads, Number.isFinite)
  checkPerHead('sinkLogits', args.sinkLogits, numHeads, (value) => value < Number.POSITIVE_INFINITY)
  if (args.rotation) checkRotation(args.rotation, numTokens, headDim)
  if (segments.length > 4) throw invalid(`at most 4 segments, got ${segments.length}`)
  for (const segment of segments) checkSegment(args, segment)
}

export function checkWeigh(args: WeighArgs): void {
  const { numTokens, numHeads, numKvHeads, firstToken = 0, lse, masses, segments } = args
  checkAttend(args)
  count('firstToken', firstToken)
  atLeast('lse', Float32Array, lse, numTokens * numHeads)
  if (masses.length !== segments.length) throw invalid(`masses of ${segments.length} segments, got ${masses.length}`)
  for (const [s, { capacity, lengths, rows }] of segments.entries()) {
    for (let k = 0; k < numKvHeads; k++) {
      const length = lengths[k] as number
      if (length > 0) atLeast('masses', Float32Array, masses[s], k * capacity + (rows ? capacity : length))
    }
  }
}

function checkPerHead(name: string, values: unknown, heads: number, isGood: (value: number) => boolean): void {
  if (values === undefined) return
  atLeast(name, Float32Array, values, heads)
  const bad = (values as Float32Array).subarray(0, heads).find((value) => !isGood(value))
  if (bad !== undefined) throw invalid(`finite numbers in ${name}, got ${bad}`)
}

/**
 * Calls as flat lists of values, in the order in which native/bindings reads them. The addon takes them as arguments;
 * for WebAssembly arrays become addresses.
 */
import type {
  AttendArgs,
  KeepArgs,
  KeyValueSegment,
  RetainArgs,
  RotateArgs,
  Rotation,
  RowLayout,
  RowTarget,
  SeekArgs,
  SelectArgs,
  StorageType,
  StoreArgs,
  TurnArgs,
  WeighArgs,
} from './contract.ts'
import { NEVER } from './contract.ts'
import { storageOf, storagesOf } from './storage.ts'

export type KernelArray = Float32Array | Float64Array | Int32Array | Uint16Array | Uint8Array
export type CallValue = number | boolean | KernelArray | undefined

const storageCodes = {
  ...{ f32: 0, f16: 1, bf16: 2 },
  ...{ int8: 3, 'fp8-e4m3': 4, 'fp8-e5m2': 5, int4: 6 },
} as const satisfies Record<StorageType, number>
const layoutCodes = { 'head-major': 0, 'token-major': 1, shared: 2 } as const satisfies Record<RowLayout, number>

/** An unknown name gives -1, which the checks refuse. */
function code(codes: Readonly<Record<string, number>>, name: string): number {
  return Object.hasOwn(codes, name) ? (codes[name] as number) : -1
}

/** @param describe what the receiver wants to know of a segment beyond the arrays themselves */
export function attendCall(args: AttendArgs, describe?: (segment: KeyValueSegment) => CallValue[]): CallValue[] {
  const { numTokens, numHeads, numKvHeads, headDim, valueDim, scale, firstPosition, segments } = args
  const { left = NEVER, right = NEVER, sinks = 0, softcap = 0 } = args
  const values: CallValue[] = [numTokens, numHeads, numKvHeads, headDim, valueDim, scale, firstPosition]
  values.push(left, right, sinks, softcap, code(storageCodes, storageOf(args.query, args.queryStorage)))
  values.push(args.query, args.output, args.lse, args.logits, args.alibiSlopes, args.sinkLogits)
  pushRotation(values, args.rotation)
  values.push(args.hadamard ?? false, segments.length)
  for (const segment of segments) {
    pushSegment(values, segment)
    if (describe) values.push(...describe(segment))
  }
  return values
}

function pushSegment(values: CallValue[], segment: KeyValueSegment): void {
  const { layout = 'head-major', pageSize = 0, pagesStride = 0, firstPosition, mask } = segment
  const { keyStorage, valueStorage } = storagesOf(segment)
  values.push(code(storageCodes, keyStorage), code(storageCodes, valueStorage), code(layoutCodes, layout))
  values.push(segment.capacity, segment.lengths, segment.keys, segment.values)
  values.push(segment.bias, segment.births, segment.deaths, segment.rows, segment.pages, pageSize, pagesStride)
  values.push(firstPosition !== undefined, firstPosition ?? 0, segment.positions)
  values.push(mask?.values, mask?.headStride ?? 0, mask?.tokenStride ?? 0)
}

function pushRotation(values: CallValue[], rotation: Rotation | undefined): void {
  values.push(rotation?.rotaryPairs ?? 0, rotation?.isInterleaved ?? false, rotation?.cos, rotation?.sin)
}

export function weighCall(args: WeighArgs, describe?: (segment: KeyValueSegment) => CallValue[]): CallValue[] {
  const [first, second, third, fourth] = args.masses
  return [args.firstToken ?? 0, first, second, third, fourth, ...attendCall(args, describe)]
}

export function storeCall(args: StoreArgs): CallValue[] {
  const values: CallValue[] = [args.numTokens, args.numKvHeads, args.stride, args.counts, args.tokens, args.slots]
  pushTargets(values, args.targets)
  return values
}

function pushTargets(values: CallValue[], targets: readonly RowTarget[]): void {
  values.push(targets.length)
  for (const target of targets) pushTarget(values, target)
}

function pushTarget(values: CallValue[], target: RowTarget): void {
  const { headDim, layout = 'head-major', capacity, source, hadamard = false, rotation } = target
  values.push(headDim, code(layoutCodes, layout), capacity, source, target.target)
  values.push(code(storageCodes, storageOf(target.target, target.storage)))
  pushRotation(values, rotation)
  values.push(hadamard)
}

export function turnCall(args: TurnArgs): CallValue[] {
  const { numTokens, headDim, capacity, source, target, storage, hadamard = false, count, rows, turns } = args
  const values: CallValue[] = [numTokens, headDim, capacity, source, target]
  values.push(code(storageCodes, storageOf(target, storage)), hadamard, count, rows, turns)
  pushRotation(values, args.rotation)
  return values
}

export function rotateCall(args: RotateArgs): CallValue[] {
  const values: CallValue[] = [args.numTokens, args.numHeads, args.headDim, args.vectors, args.isInverse ?? false]
  pushRotation(values, args)
  return values
}

export function retainCall(args: RetainArgs): CallValue[] {
  const { kept, numTokens, firstPosition } = args
  const values: CallValue[] = [kept.numKvHeads, kept.window, kept.sinks, kept.recent, numTokens, firstPosition]
  values.push(kept.scores, kept.positions, kept.lengths, kept.heap, kept.heapLengths, kept.accepted, kept.ring)
  values.push(args.scores, args.rowDeaths, args.tokenDeaths, args.counts, args.tokens, args.slots)
  values.push(args.leftPositions, args.leftScores)
  return values
}

export function keepCall(args: KeepArgs): CallValue[] {
  const values = retainCall(args)
  pushTargets(values, args.targets)
  return values
}

export function selectCall(args: SelectArgs): CallValue[] {
  const { numKvHeads, capacity, numRows, window, scores, rows, lengths } = args
  return [numKvHeads, capacity, numRows, window, scores, rows, lengths]
}

export function seekCall(args: SeekArgs): CallValue[] {
  const { query, bounds, storage, bias, numHeads, numKvHeads, headDim, scale, capacity, numRows, most, rows, lengths } =
    args
  const values: CallValue[] = [numHeads, numKvHeads, headDim, scale, capacity, numRows, most, query, bounds]
  values.push(code(storageCodes, storageOf(bounds, storage)), bias, rows, lengths)
  return values
}

/**
 * Calls as flat lists of values, in the order in which native/bindings/node.cc and wasm.cc read them. The addon takes
 * them as arguments; for WebAssembly arrays become addresses.
 */
import type { AttendArgs, RetainArgs, RotateArgs, SelectArgs, StorageArray, StoreArgs } from './contract.ts'

export type KernelArray = Float32Array | Float64Array | Int32Array | Uint16Array
export type CallValue = number | boolean | KernelArray | undefined

const storageOf = (array: StorageArray | undefined) => (array instanceof Uint16Array ? 1 : 0)

export function attendCall(args: AttendArgs): CallValue[] {
  const { numTokens, numHeads, numKvHeads, headDim, valueDim, scale, firstPosition, segments } = args
  const values: CallValue[] = [numTokens, numHeads, numKvHeads, headDim, valueDim, scale, firstPosition]
  values.push(args.query, args.output, args.lse, storageOf(segments[0]?.keys), segments.length)
  for (const {
    isTokenMajor = false,
    capacity,
    lengths,
    keys,
    values: stored,
    bias,
    births,
    deaths,
    rows,
  } of segments) {
    values.push(isTokenMajor, capacity, lengths, keys, stored, bias, births, deaths, rows)
  }
  return values
}

export function storeCall(args: StoreArgs): CallValue[] {
  const { numTokens, numKvHeads, headDim, capacity, stride, source, target, counts, tokens, slots } = args
  return [numTokens, numKvHeads, headDim, capacity, stride, source, target, counts, tokens, slots, storageOf(target)]
}

export function rotateCall(args: RotateArgs): CallValue[] {
  const { numTokens, numHeads, headDim, rotaryPairs, vectors, cos, sin } = args
  return [numTokens, numHeads, headDim, rotaryPairs, vectors, cos, sin]
}

export function retainCall({ kept, ...args }: RetainArgs): CallValue[] {
  const { numKvHeads, window, sinks, recent, scores, positions, lengths, heap, heapLengths, accepted, ring } = kept
  return [
    ...[numKvHeads, window, sinks, recent, args.numTokens, args.firstPosition],
    ...[scores, positions, lengths, heap, heapLengths, accepted, ring],
    ...[args.scores, args.rowDeaths, args.tokenDeaths, args.counts, args.tokens, args.slots],
  ]
}

export function selectCall(args: SelectArgs): CallValue[] {
  const { numKvHeads, capacity, numRows, window, scores, rows, lengths } = args
  return [numKvHeads, capacity, numRows, window, scores, rows, lengths]
}

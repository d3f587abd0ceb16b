/** Tables of a rotary encoding, and rows of them for the tokens of a call. */
import type { Tensor } from 'onnxruntime-common'
import type { FloatType, Rotation } from '../kernels/index.ts'
import { storageCodecs } from '../kernels/storage.ts'
import { checkInteger } from '../tensor/check.ts'
import { invalidArgument } from '../tensor/error.ts'
import { type FloatData, floatData, isTensor } from './tensors.ts'
import { widen } from './widen.ts'

export interface Rotary {
  readonly cos: FloatData
  readonly sin: FloatData
  /** Positions that the tables have. */
  readonly length: number
  /** R */
  readonly pairs: number
  readonly isInterleaved: boolean
}

/** @throws KvasirError: tables of two shapes, or of more than D / 2 pairs */
export function readRotary(
  options: { readonly rotaryCos?: Tensor; readonly rotarySin?: Tensor; readonly rotaryInterleaved?: boolean },
  D: number,
  storage: FloatType,
): Rotary | undefined {
  const { rotaryCos, rotarySin, rotaryInterleaved: isInterleaved = true } = options
  if (rotaryCos === undefined || rotarySin === undefined) return undefined
  const read = (name: string, tensor: Tensor, shape: readonly (number | null)[]) => {
    return floatData(name, tensor, shape, isTensor(tensor) && tensor.type === 'float32' ? 'f32' : storage)
  }
  const cos = read('rotaryCos', rotaryCos, [null, null])
  const [length, pairs] = cos.dims as [number, number]
  checkInteger('attention', 'the second axis of rotaryCos (rotaryDim / 2)', pairs, 0, Math.floor(D / 2))
  const sin = read('rotarySin', rotarySin, cos.dims)
  checkTable('rotaryCos', cos)
  checkTable('rotarySin', sin)
  return { cos, sin, length, pairs, isInterleaved }
}

/** What is rotated with NaN stays in the cache for good. */
function checkTable(name: string, { data, storage }: FloatData): void {
  const { read } = storageCodecs[storage]
  for (const stored of data) {
    const value = read(stored)
    if (!Number.isFinite(value)) throw invalidArgument('attention', `expected finite numbers in ${name}, got ${value}`)
  }
}

/** For `count` tokens: the positions first, first + step, ... */
export function rotationAt(
  { cos, sin, pairs, isInterleaved }: Rotary,
  first: number,
  count: number,
  step: 0 | 1,
): Rotation {
  const rows = ({ data, storage }: FloatData): Float32Array => {
    const from = first * pairs
    if (step === 1) return widen(data.subarray(from, from + count * pairs), storage)
    const row = widen(data.subarray(from, from + pairs), storage)
    const repeated = new Float32Array(count * pairs)
    for (let t = 0; t < count; t++) repeated.set(row, t * pairs)
    return repeated
  }
  return { cos: rows(cos), sin: rows(sin), rotaryPairs: pairs, isInterleaved }
}

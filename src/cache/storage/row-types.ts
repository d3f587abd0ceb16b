/** How the rows of a cache are stored, from what a user chose: one place for what follows from a type. */
import { residualWithin, usualResidual } from '../../attention/counting-bytes.ts'
import { type Kernels, rowBytes, type StorageType } from '../../kernels/index.ts'
import { isQuantized } from '../../tensor/quantized-row.ts'
import type { CacheOptions } from '../contract.ts'
import { Plane, type RowPlanes } from './plane.ts'

export interface RowTypes {
  readonly keyType: StorageType
  readonly valueType: StorageType
  /** Rows are transformed on their way into storage, so that few bits a number say more of them. */
  readonly hadamard: boolean
  /** The last so many tokens of the stream are stored in f16 besides, and read from there. */
  readonly residual: number
  /** Whether the user did not say how many. */
  readonly isUsualResidual: boolean
}

/** Of K and V where the user does not say. */
export const usualType = 'f32' satisfies StorageType

/** With rows of few bits among them, all are transformed and, but for int8, the newest tokens left in f16. */
export function rowTypesOf(options: Pick<CacheOptions, 'kvDtype' | 'kvDtypeK' | 'kvDtypeV' | 'residual'>): RowTypes {
  const { kvDtype = usualType, kvDtypeK: keyType = kvDtype, kvDtypeV: valueType = kvDtype } = options
  const { residual = usualResidual(keyType, valueType) } = options
  const hadamard = isQuantized(keyType) || isQuantized(valueType)
  return { keyType, valueType, hadamard, residual, isUsualResidual: options.residual === undefined }
}

/** How the newest tokens are stored. */
export function residualTypes<T extends RowTypes>(types: T): T {
  return { ...types, keyType: 'f16', valueType: 'f16', residual: 0 }
}

/** Where no more than W tokens are kept, no more than W need be left in f16. */
export function boundedTypes(types: RowTypes, window: number): RowTypes {
  return { ...types, residual: residualWithin(window, types.residual, types.isUsualResidual) }
}

export interface RowShape extends Pick<RowTypes, 'keyType' | 'valueType'> {
  /** D */
  readonly headDim: number
  /** E */
  readonly valueDim: number
  /** Keys are stored unrotated beside the rotated ones that attention reads. */
  readonly hasOriginals?: boolean
}

/** Bytes of K and V of one row of one KV head. */
export function bytesOfRow({ headDim, valueDim, keyType, valueType, hasOriginals }: RowShape): number {
  return rowBytes(headDim, keyType) * (hasOriginals ? 2 : 1) + rowBytes(valueDim, valueType)
}

/** Memory for `rows` rows. */
export function createPlanes(kernels: Kernels, shape: RowShape & Pick<RowTypes, 'hadamard'>, rows: number): RowPlanes {
  const { headDim, valueDim, keyType, valueType, hadamard, hasOriginals } = shape
  const keyFormat = { dim: headDim, storage: keyType, hadamard }
  return {
    keys: new Plane(kernels, keyFormat, rows),
    values: new Plane(kernels, { dim: valueDim, storage: valueType, hadamard }, rows),
    originals: hasOriginals ? new Plane(kernels, keyFormat, rows) : undefined,
  }
}

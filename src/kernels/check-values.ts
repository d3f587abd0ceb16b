/** Checks of single arguments of kernels, as the addon makes them: numbers, arrays and what they hold. */
import { checkChoice, checkInteger, describe } from '../tensor/check.ts'
import { invalidArgument, type KvasirError } from '../tensor/error.ts'
import { isQuantized } from '../tensor/quantized-row.ts'
import type { KernelArray } from './calls.ts'
import type { Rotation, StorageType } from './contract.ts'
import { NEVER } from './contract.ts'
import { storageTypes } from './storage.ts'

const maxDim = 65536
export const maxCount = NEVER - 1

export function dimension(name: string, value: number): void {
  checkInteger('kernels', name, value, 1, maxDim)
}

export function count(name: string, value: number): void {
  checkInteger('kernels', name, value, 0, maxCount)
}

export type ArrayType = new (length: number) => KernelArray

export function atLeast(name: string, Type: ArrayType, array: unknown, length: number): void {
  if (!(array instanceof Type)) {
    throw invalidArgument('kernels', `expected a ${Type.name} for ${name}, got ${describe(array)}`)
  }
  if (array.length >= length) return
  throw invalidArgument('kernels', `expected at least ${length} elements in ${name}, got ${array.length}`)
}

/** @throws KvasirError for a storage that is unknown */
export function arrayTypeOf(storage: StorageType): ArrayType {
  checkChoice('kernels', 'storage', storage, storageTypes)
  if (isQuantized(storage)) return Uint8Array
  return storage === 'f32' ? Float32Array : Uint16Array
}

export function invalid(expected: string): KvasirError {
  return invalidArgument('kernels', `expected ${expected}`)
}

export function within(name: string, entries: Int32Array, start: number, length: number, limit: number): void {
  for (let i = start; i < start + length; i++) {
    const entry = entries[i] as number
    if (entry < 0 || entry >= limit) throw invalidArgument('kernels', `expected ${name} below ${limit}, got ${entry}`)
  }
}

export function checkRotation({ cos, sin, rotaryPairs }: Rotation, numTokens: number, headDim: number): void {
  checkInteger('kernels', 'rotaryPairs', rotaryPairs, 0, Math.floor(headDim / 2))
  atLeast('cos', Float32Array, cos, numTokens * rotaryPairs)
  atLeast('sin', Float32Array, sin, numTokens * rotaryPairs)
}

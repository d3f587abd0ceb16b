/** Tensors of random numbers for tests, and how results are compared. */
import type { Tensor } from 'onnxruntime-common'
import { Tensor as OrtTensor } from 'onnxruntime-common'
import { expect } from 'vitest'
import { backends } from '../../kernels/backends.ts'
import { createRandom, normal } from '../../kernels/cases.ts'
import { type BackendName, backendNames, type FloatType } from '../../kernels/index.ts'
import { storageCodecs, toStorage } from '../../kernels/storage.ts'
import type { AttentionState } from '../core.ts'
import { storedTensor } from '../tensors.ts'
import type { Defined, Sizes } from './definition.ts'

/** The backends that work here; src/kernels skips the others aloud. */
export const usableBackends: BackendName[] = backendNames.filter((name) => backends[name].probe() === true)

/** Sizes with what does not matter filled in. */
export function sizesOf(sizes: Partial<Sizes>): Sizes {
  const filled = { B: 1, T: 3, S: 7, H: 2, D: 8, ...sizes }
  return { K: filled.H, E: filled.D, ...filled }
}

/** A tensor, and the numbers that it holds after rounding. */
export interface Sample {
  readonly tensor: Tensor
  readonly numbers: Float32Array
}

export function sample(seed: number, dims: readonly number[], storage: FloatType = 'f32', scale = 1): Sample {
  const length = dims.reduce((a, b) => a * b, 1)
  return sampleOf(normal(createRandom(seed), length, scale), dims, storage)
}

export function sampleOf(values: Float32Array, dims: readonly number[], storage: FloatType = 'f32'): Sample {
  const stored = toStorage(values, storage)
  return {
    tensor: storedTensor(stored, storage, dims),
    numbers: Float32Array.from(stored, storageCodecs[storage].read),
  }
}

/** q, k and v, token-major. */
export function samples({ B, T, S, H, K, D, E }: Sizes, seed: number, storage: FloatType = 'f32') {
  const q = sample(seed, [B, T, H, D], storage)
  const k = sample(seed + 1, [B, S, K, D], storage)
  const v = sample(seed + 2, [B, S, K, E], storage)
  return { q, k, v, numbers: { q: q.numbers, k: k.numbers, v: v.numbers } }
}

export function int32(values: readonly number[] | Int32Array, dims: readonly number[] = [values.length]): Tensor {
  return new OrtTensor('int32', Int32Array.from(values), dims)
}

export function numbersOf(tensor: Tensor): Float32Array {
  const storage = tensor.type === 'float32' ? 'f32' : tensor.type === 'float16' ? 'f16' : 'bf16'
  return Float32Array.from(tensor.data as Uint16Array, storageCodecs[storage].read)
}

/** Half a unit in the last place of the output's type ... */
const rounding = { float32: 0, float16: 2 ** -11, uint16: 2 ** -8 } as const
/** ... and what arithmetic may add: that of f32; with bf16 the weights may be rounded too, where processors multiply it. */
const f32Error = 2e-5
const arithmetic = { float32: f32Error, float16: f32Error, uint16: 2 ** -8 } as const

export function expectClose(state: AttentionState, expected: Defined, dims: readonly number[]): void {
  const { output, lse } = state
  expect(output.dims).toEqual(dims)
  expect(lse.dims).toEqual(dims.slice(0, -1))
  const type = output.type as keyof typeof rounding
  expectNumbers(numbersOf(output), expected.output, rounding[type], arithmetic[type])
  expectNumbers(numbersOf(lse), expected.lse, 1e-6)
}

export function expectNumbers(
  actual: ArrayLike<number>,
  expected: ArrayLike<number>,
  relative = 0,
  absolute = f32Error,
): void {
  expect(actual.length).toBe(expected.length)
  for (let i = 0; i < expected.length; i++) {
    const [came, right] = [actual[i] as number, expected[i] as number]
    if (came === right || Math.abs(came - right) <= absolute + relative * Math.abs(right)) continue
    expect.fail(`element ${i}: expected ${right}, got ${came}`)
  }
}

export function bitsOf(tensor: Tensor): Uint8Array {
  const { buffer, byteOffset, byteLength } = tensor.data as Uint16Array
  return new Uint8Array(buffer, byteOffset, byteLength)
}

export function expectSameBits(actual: AttentionState, expected: AttentionState): void {
  for (const name of ['output', 'lse'] as const) {
    expect(actual[name].dims).toEqual(expected[name].dims)
    expect(Buffer.compare(bitsOf(actual[name]), bitsOf(expected[name])), name).toBe(0)
  }
}

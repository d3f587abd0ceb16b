import { describe } from '../tensor/check.ts'
import { invalidArgument } from '../tensor/error.ts'
import type { Kernels } from './contract.ts'

/** @throws KvasirError `invalid-argument` for what `openKernels` did not make */
export function checkKernels(area: string, kernels: unknown): asserts kernels is Kernels {
  if (typeof (kernels as Kernels | undefined | null)?.attendAsync === 'function') return
  throw invalidArgument(area, `expected opened kernels for kernels, got ${describe(kernels)}`)
}

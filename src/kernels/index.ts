/**
 * The one place that chooses a backend.
 */

import type { BackendName, Kernels } from './contract.ts'
import { openReference } from './reference.ts'

export type * from './contract.ts'
export { NEVER } from './contract.ts'

export interface KernelOptions {
  readonly backend?: BackendName
  readonly threads?: number
}

const backends = { reference: () => openReference() } as const

export function openKernels(options: KernelOptions = {}): Kernels {
  return backends.reference()
}

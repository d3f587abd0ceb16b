/** Which kernels a call runs on. The choice itself is made in src/kernels; here an opened backend is kept. */
import { type BackendName, defaultKernels, type Kernels, openKernels } from '../kernels/index.ts'
import { describe } from '../tensor/check.ts'
import { invalidArgument } from '../tensor/error.ts'

export interface BackendOptions {
  /** Default: the best of this machine. */
  readonly backend?: BackendName
  /** Kernels that are open already (`openKernels` of kvasir/kernels), instead of `backend`. */
  readonly kernels?: Kernels
}

const opened = new Map<BackendName, Kernels>()

export function kernelsFor({ backend, kernels }: BackendOptions): Kernels {
  if (kernels !== undefined) {
    if (backend !== undefined) throw invalidArgument('attention', 'expected backend or kernels, got both')
    if (typeof kernels?.attendAsync === 'function') return kernels
    throw invalidArgument('attention', `expected opened kernels for kernels, got ${describe(kernels)}`)
  }
  if (backend === undefined) return defaultKernels()
  const known = opened.get(backend)
  if (known) return known
  const fresh = openKernels({ backend })
  opened.set(backend, fresh)
  return fresh
}

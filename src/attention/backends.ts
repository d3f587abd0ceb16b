/** Which kernels a call runs on. The choice itself is made in src/kernels; here an opened backend is kept. */
import { checkKernels } from '../kernels/check-kernels.ts'
import { type BackendName, defaultKernels, type Kernels, openKernels } from '../kernels/index.ts'
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
    checkKernels('attention', kernels)
    return kernels
  }
  if (backend === undefined) return defaultKernels()
  const known = opened.get(backend)
  if (known) return known
  const fresh = openKernels({ backend })
  opened.set(backend, fresh)
  return fresh
}

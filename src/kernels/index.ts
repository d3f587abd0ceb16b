/**
 * The one place that chooses a backend: the `backend` option, else `KVASIR_BACKEND`, else the best that works here.
 */
import { checkChoice, checkInteger, checkKeys } from '../tensor/check.ts'
import { KvasirError } from '../tensor/error.ts'
import { backendNames, backends, bestBackend } from './backends.ts'
import type { BackendName, Kernels } from './contract.ts'
import { environmentVariable, numCores } from './host.ts'

export { backendNames } from './backends.ts'
export type * from './contract.ts'
export { NEVER } from './contract.ts'
export { rowBytes, storageTypes } from './storage.ts'
export { fetchKernels } from './wasm-code.ts'

export interface KernelOptions {
  readonly backend?: BackendName
  /** Threads of `native` and `wasm`, the caller's included (default: all cores). `reference` runs on one. */
  readonly threads?: number
}

/**
 * Opens a backend. When `native` can't be used and none was asked for, `wasm` serves, and `whyNotNative` says why.
 * @throws KvasirError `invalid-argument` for an unknown backend, `unsupported` when the one asked for can't be used, or
 * when none was asked for and neither of these two can
 */
export function openKernels(options: KernelOptions = {}): Kernels {
  checkKeys('kernels', 'kernels', options, ['backend', 'threads'])
  const threads = options.threads ?? numCores()
  checkInteger('kernels', 'threads', threads, 1, 256)
  const isAsked = options.backend !== undefined
  const wanted = isAsked ? options.backend : environmentVariable('KVASIR_BACKEND')
  if (wanted !== undefined) {
    checkChoice('kernels', isAsked ? 'backend' : 'KVASIR_BACKEND', wanted, backendNames)
    const probed = backends[wanted].probe()
    if (probed !== true) throw new KvasirError('unsupported', 'kernels', `backend "${wanted}" can't be used: ${probed}`)
    return backends[wanted].open(threads)
  }
  return backends[bestBackend()].open(threads)
}

let shared: Kernels | undefined

/** The kernels that functions and caches use when they are given none: opened once, since a backend owns threads. */
export function defaultKernels(): Kernels {
  shared ??= openKernels()
  return shared
}

/** Why attention does not run on the native addon, or nothing when it can. */
export function whyNotNative(): string | undefined {
  const probed = backends.native.probe()
  return probed === true ? undefined : probed
}

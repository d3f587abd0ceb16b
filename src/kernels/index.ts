/**
 * The one place that chooses a backend: the `backend` option, else `KVASIR_BACKEND`, else the first of the table that
 * works here.
 */
import { availableParallelism } from 'node:os'
import { checkChoice, checkInteger, checkKeys } from '../tensor/check.ts'
import { KvasirError } from '../tensor/error.ts'
import type { BackendName, Kernels } from './contract.ts'
import { openNative, probeNative } from './native.ts'
import { openReference } from './reference.ts'
import { openWasm, probeWasm } from './wasm.ts'

export type * from './contract.ts'
export { NEVER } from './contract.ts'
export { rowBytes, storageTypes } from './storage.ts'

export interface KernelOptions {
  readonly backend?: BackendName
  /** Threads of `native` and `wasm`, the caller's included (default: all cores). `reference` runs on one. */
  readonly threads?: number
}

interface BackendEntry {
  /** True, or why this backend can't be used here. */
  probe(): true | string
  open(threads: number): Kernels
}

/** In order of preference. */
export const backends = {
  native: { probe: probeNative, open: (threads: number) => openNative(threads) },
  wasm: { probe: probeWasm, open: (threads: number) => openWasm(threads) },
  reference: { probe: () => true, open: () => openReference() },
} as const satisfies Record<BackendName, BackendEntry>

export const backendNames = Object.keys(backends) as BackendName[]

/**
 * Opens a backend. When the best one can't be used and none was asked for, the next serves; `whyNotNative` says why.
 * @throws KvasirError `invalid-argument` for an unknown backend, `unsupported` when the one asked for can't be used.
 */
export function openKernels(options: KernelOptions = {}): Kernels {
  checkKeys('kernels', 'kernels', options, ['backend', 'threads'])
  const threads = options.threads ?? availableParallelism()
  checkInteger('kernels', 'threads', threads, 1, 256)
  const isAsked = options.backend !== undefined
  const wanted = isAsked ? options.backend : process.env.KVASIR_BACKEND || undefined
  if (wanted !== undefined) {
    checkChoice('kernels', isAsked ? 'backend' : 'KVASIR_BACKEND', wanted, backendNames)
    const probed = backends[wanted].probe()
    if (probed !== true) throw new KvasirError('unsupported', 'kernels', `backend "${wanted}" can't be used: ${probed}`)
    return backends[wanted].open(threads)
  }
  const name = backendNames.find((candidate) => backends[candidate].probe() === true) ?? 'reference'
  return backends[name].open(threads)
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

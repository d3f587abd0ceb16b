/** The backends, and the choice of one. */
import { KvasirError } from '../tensor/error.ts'
import type { BackendName, Kernels } from './contract.ts'
import { openNative, probeNative } from './native.ts'
import { openCheckedReference } from './reference-checked.ts'
import { openWasm, probeWasm } from './wasm.ts'

interface BackendEntry {
  /** True, or why this backend can't be used here. */
  probe(): true | string
  open(threads: number): Kernels
}

/** In order of preference. */
export const backends = {
  native: { probe: probeNative, open: (threads: number) => openNative(threads) },
  wasm: { probe: probeWasm, open: (threads: number) => openWasm(threads) },
  reference: { probe: () => true, open: () => openCheckedReference() },
} as const satisfies Record<BackendName, BackendEntry>

/** All that `openKernels` knows, in order of preference. */
export const backendNames: readonly BackendName[] = Object.keys(backends) as BackendName[]

/**
 * The best backend that works here. `reference` is a hundred times as slow, so nobody gets it without asking.
 * @throws KvasirError `unsupported`: none works, and why
 */
export function bestBackend(): BackendName {
  const reasons: string[] = []
  for (const name of backendNames) {
    if (name === 'reference') continue
    const probed = backends[name].probe()
    if (probed === true) return name
    reasons.push(`${name}: ${probed}`)
  }
  const message = `expected a backend that can be used, got none; ${reasons.join('; ')}; "reference" works, but slowly`
  throw new KvasirError('unsupported', 'kernels', message)
}

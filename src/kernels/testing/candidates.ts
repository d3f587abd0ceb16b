/** What the conformance tests run on. */
import { test } from 'vitest'
import { backendNames, backends } from '../backends.ts'
import type { Kernels } from '../contract.ts'
import { instructionSets, openNative, probeNative } from '../native.ts'

/** Every backend of the table, every instruction set, a few numbers of threads. What is missing is skipped aloud. */
export const candidates: { name: string; open: () => Kernels }[] = []
for (const name of backendNames.filter((candidate) => candidate !== 'reference')) {
  const probed = backends[name].probe()
  if (probed === true) candidates.push({ name, open: () => backends[name].open(2) })
  else test(`${name} agrees with the reference`, (context) => context.skip(probed))
}
if (probeNative() === true) {
  for (const set of instructionSets()) candidates.push({ name: `native ${set}`, open: () => openNative(2, set) })
  for (const threads of [1, 5]) candidates.push({ name: `native, ${threads} threads`, open: () => openNative(threads) })
}

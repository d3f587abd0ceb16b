/**
 * The specification of each op: f64 arithmetic, plain loops, no cleverness. Every other backend is tested against this.
 */
import type { Kernels } from './contract.ts'
import { allocateHostMemory } from './host-memory.ts'
import { attend, weigh } from './reference-attend.ts'
import { retain, select } from './reference-retain.ts'
import { keep, rotate, store, turn } from './reference-rows.ts'
import { seek } from './reference-seek.ts'

export function openReference(): Kernels {
  return {
    name: 'reference',
    description: 'reference (f64 TypeScript)',
    alloc: (byteLength) => allocateHostMemory(byteLength),
    attend: (args) => attend(args),
    attendAsync: async (args) => attend(args),
    weigh,
    store,
    retain,
    keep,
    select,
    seek,
    turn,
    rotate,
  }
}

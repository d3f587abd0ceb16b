/** New tokens of `flashAttentionWithKVCache`, and how they get into the cache. */
import type { Tensor } from 'onnxruntime-common'
import type { Kernels, StorageArray } from '../kernels/index.ts'
import { invalidArgument } from '../tensor/error.ts'
import type { Places } from './cache-places.ts'
import { checkSameStorage, type Problem } from './core.ts'
import { type Rotary, rotationAt } from './rotary.ts'
import { allocate, floatData } from './tensors.ts'
import { widen } from './widen.ts'

export interface NewTokens {
  /** Of each sequence. */
  readonly count: number
  /** `[B, count, K, D]` */
  readonly key: StorageArray
  /** `[B, count, K, E]` */
  readonly value: StorageArray
}

export function readNewTokens(
  options: { readonly k?: Tensor; readonly v?: Tensor },
  problem: Problem,
): NewTokens | undefined {
  const { k, v } = options
  if (k === undefined || v === undefined) return undefined
  const { B, K, D, E, storage } = problem
  const key = floatData('k', k, [B, null, K, D], storage === 'bf16' ? storage : undefined)
  const count = key.dims[1] as number
  const value = floatData('v', v, [B, count, K, E], storage === 'bf16' ? storage : undefined)
  const cache = { data: problem.key, storage, dims: [] }
  checkSameStorage('k', key, 'kCache', cache)
  checkSameStorage('v', value, 'kCache', cache)
  const stored = [problem.key, problem.value]
  if (overlap(problem.key, problem.value))
    throw invalidArgument('attention', 'expected kCache and vCache apart, got one memory')
  for (const [name, data] of Object.entries({ q: problem.query, k: key.data, v: value.data })) {
    if (!stored.some((cached) => overlap(cached, data))) continue
    throw invalidArgument('attention', `expected ${name} apart from the caches that are written, got one memory`)
  }
  return { count, key: key.data, value: value.data }
}

function overlap(a: StorageArray, b: StorageArray): boolean {
  if (a.buffer !== b.buffer) return false
  return a.byteOffset < b.byteOffset + b.byteLength && b.byteOffset < a.byteOffset + a.byteLength
}

/**
 * Pages may be shared for reading. A row that is written must belong to one sequence alone.
 * @throws KvasirError where storing for one sequence would change what another one sees
 */
export function checkTargets({ B }: Problem, { count }: NewTokens, { of, row, table }: Places): void {
  if (!table || count === 0) return
  const writers = new Map<number, number>()
  for (let b = 0; b < B; b++) {
    for (let j = of(b).before; j < of(b).total; j++) {
      const target = row(b, j)
      const other = writers.get(target)
      if (other !== undefined) throw sharedRow(table.pageSize, target, other, b)
      writers.set(target, b)
    }
  }
  const written = new Set([...writers.keys()].map((target) => Math.floor(target / table.pageSize)))
  for (let b = 0; b < B; b++) {
    for (let j = 0; j < of(b).before; j += table.pageSize) {
      const first = row(b, j)
      if (!written.has(Math.floor(first / table.pageSize))) continue
      for (let i = 0; i < table.pageSize && j + i < of(b).before; i++) {
        const writer = writers.get(first + i)
        if (writer !== undefined) throw sharedRow(table.pageSize, first + i, writer, b)
      }
    }
  }
}

function sharedRow(pageSize: number, row: number, writer: number, other: number) {
  const came = `row ${row % pageSize} of page ${Math.floor(row / pageSize)} in those of ${writer} and ${other}`
  return invalidArgument('attention', `expected the rows that are written in the pages of one sequence, got ${came}`)
}

/** Rotates k and stores k and v. The tokens of a page or a sequence lie together, so they are copied in runs. */
export function append(
  kernels: Kernels,
  problem: Problem,
  fresh: NewTokens,
  places: Places,
  rotary: Rotary | undefined,
): void {
  const { B, K, D, E } = problem
  const { count } = fresh
  for (let b = 0; b < B; b++) {
    const { before, total } = places.of(b)
    const from = b * count
    const own = fresh.key.subarray(from * K * D, (from + count) * K * D)
    const keys = rotary && count > 0 ? rotated(kernels, problem, own, before, rotary) : own
    const run = places.table?.pageSize ?? count
    for (let j = before; j < total; ) {
      const length = Math.min(total - j, run - (places.table ? j % run : 0))
      const [row, n] = [places.row(b, j), j - before]
      problem.key.set(keys.subarray(n * K * D, (n + length) * K * D), row * K * D)
      problem.value.set(fresh.value.subarray((from + n) * K * E, (from + n + length) * K * E), row * K * E)
      j += length
    }
  }
}

/** `[count, K, D]` keys of one sequence, rotated to their places in f32 and rounded once. */
function rotated(
  kernels: Kernels,
  { K, D, storage }: Problem,
  keys: StorageArray,
  before: number,
  rotary: Rotary,
): StorageArray {
  const count = keys.length / (K * D)
  const target = allocate(storage, keys.length)
  const each = Int32Array.from({ length: K * count }, (_, i) => i % count)
  kernels.store({
    ...{ source: widen(keys, storage), target, storage, layout: 'token-major', numTokens: count, numKvHeads: K },
    ...{ headDim: D, capacity: count, counts: new Int32Array(K).fill(count), tokens: each, slots: each, stride: count },
    rotation: rotationAt(rotary, before, count, 1),
  })
  return target
}

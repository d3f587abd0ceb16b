/** New tokens of `flashAttentionWithKVCache`, and how they get into the cache. */
import type { Tensor } from 'onnxruntime-common'
import type { FloatArray, Kernels, Rotation } from '../kernels/index.ts'
import { invalidArgument } from '../tensor/error.ts'
import type { Places } from './cache-places.ts'
import { checkSameStorage, type Problem } from './core.ts'
import { type Rotary, rotationAt } from './rotary.ts'
import { floatData } from './tensors.ts'
import { widen } from './widen.ts'

export interface NewTokens {
  /** Of each sequence. */
  readonly count: number
  /** `[B, count, K, D]` */
  readonly key: FloatArray
  /** `[B, count, K, E]` */
  readonly value: FloatArray
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
  return { count, key: key.data, value: value.data }
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

/** Stores k, rotated on the way when there is an encoding, and v. The tokens of a page or a sequence lie together. */
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
    const run = places.table?.pageSize ?? count
    for (let j = before; j < total; ) {
      const length = Math.min(total - j, run - (places.table ? j % run : 0))
      const [row, from] = [places.row(b, j), b * count + j - before]
      const source = fresh.key.subarray(from * K * D, (from + length) * K * D)
      const target = problem.key.subarray(row * K * D, (row + length) * K * D)
      if (rotary) storeRotated(kernels, problem, source, target, rotationAt(rotary, j, length, 1))
      else target.set(source)
      problem.value.set(fresh.value.subarray(from * K * E, (from + length) * K * E), row * K * E)
      j += length
    }
  }
}

/** `[tokens, K, D]` from `source` to `target`: rotated in f32 and rounded once. */
function storeRotated(
  kernels: Kernels,
  { K, D, storage }: Problem,
  source: FloatArray,
  target: FloatArray,
  rotation: Rotation,
): void {
  const numTokens = source.length / (K * D)
  const each = Int32Array.from({ length: K * numTokens }, (_, i) => i % numTokens)
  kernels.store({
    targets: [
      {
        ...{ source: widen(source, storage), target, storage, layout: 'token-major', headDim: D, rotation },
        capacity: numTokens,
      },
    ],
    ...{ numTokens, numKvHeads: K, stride: numTokens },
    ...{ counts: new Int32Array(K).fill(numTokens), tokens: each, slots: each },
  })
}

/** Writing rows, and rotating. */
import { hadamard } from '../tensor/hadamard.ts'
import type { KeepArgs, RotateArgs, Rotation, RowTarget, StoreArgs, TurnArgs } from './contract.ts'
import { retain } from './reference-retain.ts'
import { readRow, storageOf, writeRow } from './storage.ts'

export function store(args: StoreArgs): void {
  for (const target of args.targets) storeTo(target, args)
}

function storeTo(row: RowTarget, { numKvHeads: K, counts, tokens, slots, stride }: Omit<StoreArgs, 'targets'>): void {
  const { source, target, headDim, layout = 'head-major', capacity } = row
  const storage = storageOf(target, row.storage)
  for (let k = 0; k < K; k++) {
    for (let n = 0; n < (counts[k] as number); n++) {
      const token = tokens[k * stride + n] as number
      const from = (token * K + k) * headDim
      const slot = slots[k * stride + n] as number
      const place = layout === 'shared' ? slot : layout === 'token-major' ? slot * K + k : k * capacity + slot
      const values = Array.from(source.subarray(from, from + headDim))
      if (row.rotation) rotateHead(values, 0, row.rotation, token, 1)
      if (row.hadamard) hadamard(values)
      writeRow(target, storage, place, values)
    }
  }
}

export function keep(args: KeepArgs): void {
  const { kept, numTokens, counts, tokens, slots, targets } = args
  retain(args)
  const stride = Math.min(numTokens, kept.window)
  store({ targets, numTokens, numKvHeads: kept.numKvHeads, counts, tokens, slots, stride })
}

export function turn({ source, target, headDim, count, rows, turns, rotation, ...types }: TurnArgs): void {
  const storage = storageOf(target, types.storage)
  for (let n = 0; n < count; n++) {
    const row = rows[n] as number
    const values = Array.from(readRow(source, storage, row, headDim))
    if (types.hadamard) hadamard(values)
    rotateHead(values, 0, rotation, turns[n] as number, 1)
    if (types.hadamard) hadamard(values)
    writeRow(target, storage, row, values)
  }
}

export function rotate(args: RotateArgs): void {
  const { vectors, numTokens, numHeads, headDim } = args
  for (let t = 0; t < numTokens; t++) {
    for (let h = 0; h < numHeads; h++) {
      rotateHead(vectors, (t * numHeads + h) * headDim, args, t, args.isInverse ? -1 : 1)
    }
  }
}

/** Turns the head that begins at `base` by the angles of token t; sign -1 turns back. */
export function rotateHead(
  x: Float32Array | number[],
  base: number,
  rotation: Rotation,
  t: number,
  sign: 1 | -1,
): void {
  const { cos, sin, rotaryPairs: pairs, isInterleaved } = rotation
  for (let i = 0; i < pairs; i++) {
    const [first, second] = isInterleaved ? [base + 2 * i, base + 2 * i + 1] : [base + i, base + pairs + i]
    const [a, b] = [x[first] as number, x[second] as number]
    const [c, s] = [cos[t * pairs + i] as number, sign * (sin[t * pairs + i] as number)]
    x[first] = a * c - b * s
    x[second] = b * c + a * s
  }
}

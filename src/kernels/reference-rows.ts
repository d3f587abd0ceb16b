/** Writing rows, and rotating. */
import { hadamard } from '../tensor/hadamard.ts'
import type { KeepArgs, RotateArgs, Rotation, StoreArgs } from './contract.ts'
import { retain } from './reference-retain.ts'
import { storageOf, writeRow } from './storage.ts'

export function store(args: StoreArgs): void {
  const {
    source,
    target,
    numKvHeads: K,
    headDim,
    layout = 'head-major',
    capacity,
    counts,
    tokens,
    slots,
    stride,
  } = args
  const storage = storageOf(target, args.storage)
  for (let k = 0; k < K; k++) {
    for (let n = 0; n < (counts[k] as number); n++) {
      const token = tokens[k * stride + n] as number
      const from = (token * K + k) * headDim
      const slot = slots[k * stride + n] as number
      const row = layout === 'shared' ? slot : layout === 'token-major' ? slot * K + k : k * capacity + slot
      const values = Array.from(source.subarray(from, from + headDim))
      if (args.rotation) rotateHead(values, 0, args.rotation, token, 1)
      if (args.hadamard) hadamard(values)
      writeRow(target, storage, row, values)
    }
  }
}

export function keep(args: KeepArgs): void {
  const { kept, numTokens, counts, tokens, slots, targets } = args
  retain(args)
  const list = {
    numTokens,
    numKvHeads: kept.numKvHeads,
    counts,
    tokens,
    slots,
    stride: Math.min(numTokens, kept.window),
  }
  for (const target of targets) store({ ...target, ...list })
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

/** Blobs whose content follows from their key, so that any process can tell whether one is right. */
import { createHash } from 'node:crypto'
import type { Blob } from '../contract.ts'

export function bodyOf(key: string, length: number): Uint8Array {
  const seed = createHash('sha256').update(key).digest()
  return Uint8Array.from({ length }, (_, i) => (seed[i % 32] as number) ^ (i >>> 5))
}

export function blobOf(key: string, length = 1000): Blob {
  return { key, parts: [bodyOf(key, length)] }
}

/** What a call writes lies apart from all that it reads: else some would be read before it is written, and some after. */
import { invalidArgument } from '../tensor/error.ts'
import { isTensor } from './tensors.ts'

/**
 * @param read arguments and options by name; those that hold no memory are passed over
 * @throws KvasirError when two of the caches, or one of them and something that is read, share memory
 */
export function checkApart(
  caches: { readonly kCache: ArrayBufferView; readonly vCache: ArrayBufferView },
  read: Readonly<Record<string, unknown>>,
): void {
  const { kCache, vCache } = caches
  if (overlap(kCache, vCache)) throw invalidArgument('attention', 'expected kCache and vCache apart, got one memory')
  for (const [name, value] of Object.entries(read)) {
    const data = isTensor(value) ? value.data : value
    if (!ArrayBuffer.isView(data) || !(overlap(kCache, data) || overlap(vCache, data))) continue
    throw invalidArgument('attention', `expected ${name} apart from the caches that are written, got one memory`)
  }
}

function overlap(a: ArrayBufferView, b: ArrayBufferView): boolean {
  if (a.buffer !== b.buffer) return false
  return a.byteOffset < b.byteOffset + b.byteLength && b.byteOffset < a.byteOffset + a.byteLength
}

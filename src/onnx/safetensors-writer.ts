/** Writes safetensors files: whole or not at all. */
import { open, rename, rm } from 'node:fs/promises'
import { type SafetensorsDtype, safetensorsBits } from './safetensors.ts'

/** A tensor to write; `bytes` is row-major, little endian. */
export interface TensorData {
  readonly name: string
  readonly dtype: SafetensorsDtype
  readonly shape: readonly number[]
  readonly bytes: Uint8Array
}

/**
 * Writes a file that every reader accepts: widest elements first, header padded to eight bytes, so each tensor begins
 * at a multiple of its element size. It is written beside its place and renamed, so nobody sees half of it.
 */
export async function writeSafetensors(
  file: string,
  tensors: readonly TensorData[],
  metadata: Readonly<Record<string, string>> = {},
): Promise<void> {
  const sorted = [...tensors].sort(byWidthAndName)
  const temporary = `${file}.${process.pid}.${Math.random().toString(36).slice(2)}.tmp`
  const handle = await open(temporary, 'wx')
  try {
    try {
      for (const bytes of [headerOf(sorted, metadata), ...sorted.map((tensor) => tensor.bytes)]) {
        await handle.writeFile(bytes)
      }
      await handle.sync()
    } finally {
      await handle.close()
    }
    await rename(temporary, file)
  } catch (error) {
    await rm(temporary, { force: true })
    throw error
  }
}

function headerOf(tensors: readonly TensorData[], metadata: Readonly<Record<string, string>>): Uint8Array {
  const entries: [string, unknown][] = [['__metadata__', { format: 'pt', ...metadata }]]
  let end = 0
  for (const { name, dtype, shape, bytes } of tensors) {
    entries.push([name, { dtype, shape, data_offsets: [end, end + bytes.length] }])
    end += bytes.length
  }
  // fromEntries defines own properties, so a tensor called __proto__ is written like any other.
  const json = new TextEncoder().encode(JSON.stringify(Object.fromEntries(entries)))
  const header = new Uint8Array(8 + Math.ceil(json.length / 8) * 8).fill(0x20)
  new DataView(header.buffer).setBigUint64(0, BigInt(header.length - 8), true)
  header.set(json, 8)
  return header
}

function byWidthAndName(a: TensorData, b: TensorData): number {
  return safetensorsBits[b.dtype] - safetensorsBits[a.dtype] || (a.name < b.name ? -1 : 1)
}

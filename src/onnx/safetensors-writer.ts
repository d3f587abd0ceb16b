/** Writes safetensors files: whole or not at all. */
import { createHash } from 'node:crypto'
import { open, rename, rm } from 'node:fs/promises'
import { KvasirError } from '../tensor/error.ts'
import { temporaryBeside } from '../tensor/temporary-file.ts'
import { type SafetensorsDtype, safetensorsBits } from './safetensors.ts'

/** A tensor to write. */
export interface TensorPlan {
  readonly name: string
  readonly dtype: SafetensorsDtype
  readonly shape: readonly number[]
}

/**
 * Writes tensors in the given order, their bytes (row-major, little endian) taken one after the other from `data`, so
 * that only one has to be in memory. The file is written beside its place and renamed: nobody sees half of it.
 * @returns the SHA-256 of the file, in hex
 */
export async function writeSafetensors(
  file: string,
  tensors: readonly TensorPlan[],
  data: AsyncIterable<Uint8Array> | Iterable<Uint8Array>,
  metadata: Readonly<Record<string, string>> = { format: 'pt' },
): Promise<string> {
  const temporary = temporaryBeside(file)
  const handle = await open(temporary, 'wx')
  const hash = createHash('sha256')
  try {
    try {
      const header = headerOf(tensors, metadata)
      hash.update(header)
      await handle.writeFile(header)
      let index = 0
      for await (const bytes of data) {
        checkSize(tensors[index++], bytes)
        hash.update(bytes)
        await handle.writeFile(bytes)
      }
      if (index !== tensors.length) throw mismatch(`data for ${tensors.length} tensors`, String(index))
      await handle.sync()
    } finally {
      await handle.close()
    }
    await rename(temporary, file)
  } catch (error) {
    await rm(temporary, { force: true })
    throw error
  }
  return hash.digest('hex')
}

/** Padded with spaces to a multiple of eight bytes. */
function headerOf(tensors: readonly TensorPlan[], metadata: Readonly<Record<string, string>>): Uint8Array {
  const entries: [string, unknown][] = [['__metadata__', metadata]]
  let end = 0
  for (const { name, dtype, shape } of tensors) {
    const begin = end
    end += sizeOf({ name, dtype, shape })
    entries.push([name, { dtype, shape, data_offsets: [begin, end] }])
  }
  // fromEntries defines own properties, so a tensor called __proto__ is written like any other.
  const json = new TextEncoder().encode(JSON.stringify(Object.fromEntries(entries)))
  const header = new Uint8Array(8 + Math.ceil(json.length / 8) * 8).fill(0x20)
  new DataView(header.buffer).setBigUint64(0, BigInt(header.length - 8), true)
  header.set(json, 8)
  return header
}

function sizeOf({ dtype, shape }: TensorPlan): number {
  return (shape.reduce((product, dim) => product * dim, 1) * safetensorsBits[dtype]) / 8
}

function checkSize(tensor: TensorPlan | undefined, bytes: Uint8Array): void {
  if (!tensor) throw mismatch('data for no further tensor', `${bytes.length} bytes`)
  if (bytes.length === sizeOf(tensor)) return
  throw mismatch(`${sizeOf(tensor)} bytes for "${tensor.name}"`, String(bytes.length))
}

function mismatch(expected: string, got: string): KvasirError {
  return new KvasirError('internal', 'safetensors', `expected ${expected}, got ${got}`)
}

/**
 * The header of a safetensors file: which tensors it holds and at which bytes. Reads no tensor data and refuses what
 * the reference reader refuses (holes, overlaps, trailing bytes, sizes that don't match shapes).
 */
import { describe } from '../tensor/check.ts'
import { KvasirError } from '../tensor/error.ts'
import { openForReading } from './open-file.ts'

/** Bits an element; names are case sensitive. F8_E4M3 is e4m3fn, C64 is two float32, F4 is e2m1. */
export const safetensorsBits = {
  BOOL: 8,
  U8: 8,
  I8: 8,
  F8_E4M3: 8,
  F8_E5M2: 8,
  F8_E8M0: 8,
  F8_E4M3FNUZ: 8,
  F8_E5M2FNUZ: 8,
  I16: 16,
  U16: 16,
  F16: 16,
  BF16: 16,
  I32: 32,
  U32: 32,
  F32: 32,
  I64: 64,
  U64: 64,
  F64: 64,
  C64: 64,
  F4: 4,
  F6_E2M3: 6,
  F6_E3M2: 6,
} as const

export type SafetensorsDtype = keyof typeof safetensorsBits

/** Where one tensor lies. Row-major, little endian; `offset` is not necessarily a multiple of the element size. */
export interface TensorEntry {
  readonly name: string
  readonly dtype: SafetensorsDtype
  readonly shape: readonly number[]
  /** Path of the file. */
  readonly file: string
  /** Byte in that file, not in its data section. */
  readonly offset: number
  readonly byteLength: number
}

/** Headers above this are refused, as the reference reader does. */
const maxHeaderBytes = 100_000_000

/**
 * Reads the header of one file.
 * @throws KvasirError `not-found` without the file, `invalid-file` naming the tensor that is wrong
 */
export async function readSafetensorsHeader(file: string): Promise<Map<string, TensorEntry>> {
  const { handle, size } = await openForReading('safetensors', file)
  try {
    const prefix = new Uint8Array(8)
    const { bytesRead } = await handle.read(prefix, 0, 8, 0)
    const length = headerLength(prefix.subarray(0, bytesRead), size, file)
    const header = new Uint8Array(length)
    const read = await handle.read(header, 0, length, 8)
    return parseSafetensorsHeader(header.subarray(0, read.bytesRead), size, file).tensors
  } finally {
    await handle.close()
  }
}

interface SafetensorsHeader {
  readonly tensors: Map<string, TensorEntry>
  readonly metadata: Readonly<Record<string, string>>
}

/**
 * Reads the header of a file that is in memory as a whole.
 * @throws KvasirError `invalid-file` naming the tensor that is wrong
 */
export function parseSafetensors(bytes: Uint8Array, file: string): SafetensorsHeader {
  const length = headerLength(bytes.subarray(0, 8), bytes.length, file)
  return parseSafetensorsHeader(bytes.subarray(8, 8 + length), bytes.length, file)
}

/**
 * Checks the first eight bytes of a file of `fileSize` bytes.
 * @returns the length of the header that follows
 */
function headerLength(prefix: Uint8Array, fileSize: number, file: string): number {
  if (prefix.length < 8) throw refuse(file, `expected at least 8 bytes, got ${prefix.length}`)
  const length = new DataView(prefix.buffer, prefix.byteOffset, 8).getBigUint64(0, true)
  if (length > BigInt(maxHeaderBytes)) throw refuse(file, `expected a header of at most 100 MB, got ${length} bytes`)
  if (8 + Number(length) > fileSize) {
    throw refuse(file, `expected a header of ${length} bytes, got a file of ${fileSize} bytes`)
  }
  return Number(length)
}

/**
 * Checks a header (without its length prefix) of a file of `fileSize` bytes.
 * @returns the tensors in the order of their bytes
 */
function parseSafetensorsHeader(header: Uint8Array, fileSize: number, file: string): SafetensorsHeader {
  const dataStart = 8 + header.length
  const entries: TensorEntry[] = []
  let metadata: Record<string, string> = {}
  for (const [name, value] of Object.entries(parseObject(header, file))) {
    if (name === '__metadata__') metadata = readMetadata(value, file)
    else entries.push(parseEntry(name, value, dataStart, file))
  }
  entries.sort((a, b) => a.offset - b.offset || a.byteLength - b.byteLength)
  let end = dataStart
  for (const { name, offset, byteLength } of entries) {
    if (offset !== end) throw refuse(file, `expected tensor "${name}" to begin at byte ${end}, got ${offset}`)
    end = offset + byteLength
  }
  if (end !== fileSize) throw refuse(file, `expected tensors up to the end at byte ${fileSize}, got ${end}`)
  return { tensors: new Map(entries.map((entry) => [entry.name, entry])), metadata }
}

function parseObject(header: Uint8Array, file: string): Record<string, unknown> {
  let value: unknown
  try {
    value = JSON.parse(new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(header))
  } catch (cause) {
    throw refuse(file, 'expected a header of JSON in UTF-8, got something else', cause)
  }
  if (!isObject(value)) throw refuse(file, `expected a JSON object as header, got ${describe(value)}`)
  return value
}

function readMetadata(metadata: unknown, file: string): Record<string, string> {
  if (metadata === null) return {}
  if (!isObject(metadata)) throw refuse(file, `expected an object for __metadata__, got ${describe(metadata)}`)
  for (const [key, value] of Object.entries(metadata)) {
    if (typeof value !== 'string') {
      throw refuse(file, `expected a string for __metadata__ key ${describe(key)}, got ${describe(value)}`)
    }
  }
  return metadata as Record<string, string>
}

function parseEntry(name: string, value: unknown, dataStart: number, file: string): TensorEntry {
  const what = `tensor ${describe(name)}`
  if (!isObject(value)) throw refuse(file, `expected an object for ${what}, got ${describe(value)}`)
  const { dtype, shape, data_offsets: offsets } = value
  if (typeof dtype !== 'string' || !Object.hasOwn(safetensorsBits, dtype)) {
    throw refuse(file, `expected a known dtype for ${what}, got ${describe(dtype)}`)
  }
  if (!isCounts(shape)) throw refuse(file, `expected integers as shape of ${what}, got ${JSON.stringify(shape)}`)
  if (!isCounts(offsets) || offsets.length !== 2 || offsets[1]! < offsets[0]!) {
    throw refuse(file, `expected data_offsets [begin, end] of ${what}, got ${JSON.stringify(offsets)}`)
  }
  const [begin, end] = offsets as [number, number]
  const byteLength = byteLengthOf(shape, dtype as SafetensorsDtype, what, file)
  if (BigInt(end - begin) !== byteLength) {
    throw refuse(file, `expected ${byteLength} bytes for ${what} (${dtype} [${shape}]), got ${end - begin}`)
  }
  return { name, dtype: dtype as SafetensorsDtype, shape, file, offset: dataStart + begin, byteLength: end - begin }
}

/** Multiplies step by step with a check of each step, so that [2^40, 2^40, 0] is refused although it holds nothing. */
function byteLengthOf(shape: readonly number[], dtype: SafetensorsDtype, what: string, file: string): bigint {
  let bits = 1n
  for (const factor of [...shape, safetensorsBits[dtype]]) {
    bits *= BigInt(factor)
    if (bits >= 2n ** 64n) throw refuse(file, `expected a size below 2^64 bits for ${what}, got shape [${shape}]`)
  }
  if (bits % 8n) throw refuse(file, `expected whole bytes for ${what}, got ${bits} bits`)
  return bits / 8n
}

function isCounts(value: unknown): value is number[] {
  return Array.isArray(value) && value.every((item) => Number.isSafeInteger(item) && item >= 0)
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

function refuse(file: string, message: string, cause?: unknown): KvasirError {
  return new KvasirError('invalid-file', 'safetensors', `${file}: ${message}`, { cause })
}

/**
 * A blob as tiers hold it: it says of itself what it is, so that whatever a disk or a server makes of it is found out.
 *
 *   0  'KVB' and the version  4 bytes
 *   4  checksum               CRC-32 of everything after it
 *   8  length of the body     f64: exact up to 2^53
 *  16  length of the key      u32
 *  20  the key, then zeros up to a multiple of 8, then the body
 *
 * Little endian. CRC-32 finds what went wrong by accident, not what somebody made up: whoever can write to a tier can
 * write anything. zlib.crc32 is there from Node 20.15 on.
 */
import { crc32 } from 'node:zlib'
import { describe } from '../../tensor/check.ts'
import { invalidArgument } from '../../tensor/error.ts'
import type { Blob, SealedEntry } from './contract.ts'

const version = 1
const magic = 0x42564b | (version << 24)
const headerBytes = 20
const checkedFrom = 8
const maxKeyLength = 512

/** @throws KvasirError `invalid-argument` for keys that not every tier can have */
export function sealEntry({ key, parts }: Blob): SealedEntry {
  if (typeof key !== 'string' || key.length > maxKeyLength || !/^[!-~]+$/.test(key)) {
    const expected = `expected a key of 1 to ${maxKeyLength} printable ASCII characters`
    throw invalidArgument('cache', `${expected}, got ${describe(key)}`)
  }
  const start = bodyStart(key)
  const length = parts.reduce((sum, part) => sum + part.byteLength, 0)
  const bytes = new Uint8Array(start + length)
  const view = new DataView(bytes.buffer)
  view.setUint32(0, magic, true)
  view.setFloat64(8, length, true)
  view.setUint32(16, key.length, true)
  for (let i = 0; i < key.length; i++) bytes[headerBytes + i] = key.charCodeAt(i)
  let at = start
  for (const part of parts) {
    bytes.set(part, at)
    at += part.byteLength
  }
  view.setUint32(4, crc32(bytes.subarray(checkedFrom)), true)
  return { key, bytes }
}

/**
 * The body of an entry, a view of `bytes`; undefined when it is not whole and of this key and version.
 * @param isChecked whether the checksum is known to be right
 */
export function openEntry(key: string, bytes: Uint8Array, isChecked = false): Uint8Array | undefined {
  if (bytes.byteLength < bodyStart(key)) return undefined
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  if (view.getUint32(0, true) !== magic || view.getUint32(16, true) !== key.length) return undefined
  if (view.getFloat64(8, true) !== bytes.byteLength - bodyStart(key)) return undefined
  for (let i = 0; i < key.length; i++) if (bytes[headerBytes + i] !== key.charCodeAt(i)) return undefined
  const isRight = isChecked || view.getUint32(4, true) === crc32(bytes.subarray(checkedFrom))
  return isRight ? bytes.subarray(bodyStart(key)) : undefined
}

function bodyStart(key: string): number {
  return Math.ceil((headerBytes + key.length) / 8) * 8
}

/** Sizes on the command line of `kvasir plan`: 128K tokens, 8GiB. */
import { InvalidArgumentError } from 'commander'
import { readByteCount } from '../tensor/byte-count.ts'

const powers: Readonly<Record<string, number>> = { '': 1, K: 1024, M: 1024 ** 2 }

/** Tokens, at least 1: 131072 or 128K; K and M are powers of 1024, as in the names of models. */
export function tokenCount(max: number): (text: string) => number {
  return (text) => {
    const [, digits = '', unit = ''] = /^(\d+(?:\.\d+)?)([KM]?)$/i.exec(text.trim()) ?? []
    const value = Number(digits) * (powers[unit.toUpperCase()] as number)
    if (Number.isInteger(value) && value >= 1 && value <= max) return value
    throw new InvalidArgumentError(`Expected a number of tokens from 1 to ${max}, such as 131072 or 128K.`)
  }
}

/** Bytes, at least 1: 8GiB = 8 x 1024^3, 8GB = 8 x 1000^3, 512MiB, 1000000. */
export function byteCount(text: string): number {
  const value = readByteCount(text)
  if (value !== undefined) return value
  throw new InvalidArgumentError('Expected a number of bytes below 2^53, such as 8GiB, 512MiB or 8GB.')
}

/** Sizes as people write them. */

const units = ['', 'K', 'M', 'G', 'T', 'P']

/** Bytes, at least 1: 8GiB = 8 x 1024^3, 8GB = 8 x 1000^3, 512MiB, 1000000; undefined for anything else. */
export function readByteCount(text: string): number | undefined {
  const [, digits = '', letter = '', binary] = /^(\d+(?:\.\d+)?)\s*(?:(?:([KMGTP])(i)?)?B)?$/i.exec(text.trim()) ?? []
  const value = Math.floor(Number(digits) * (binary ? 1024 : 1000) ** units.indexOf(letter.toUpperCase()))
  return Number.isSafeInteger(value) && value >= 1 ? value : undefined
}

/**
 * Saved sequences of llama.cpp, version 3: from one of a few tokens to one of many, whose keys and values are random.
 * Reading a long text only to look back on it would take minutes a case.
 *
 * Layout, little endian: magic, version, count and list of tokens; streams, count of cells, for each its position,
 * number of sequences and sequence; whether values are transposed, layers; for each layer the keys (type, bytes of a
 * row, rows), then for each layer the values.
 */
import { closeSync, openSync, writeSync } from 'node:fs'
import { KvasirError } from '../../src/tensor/error.ts'
import { f32ToF16 } from '../../src/tensor/float16.ts'
import { randomValues } from './candidate.ts'

const version = 3
/** ggml_type */
const f16 = 1

/**
 * Writes a sequence of `tokens` tokens to `file`.
 * @param known a saved sequence of the same model with a few tokens
 * @throws KvasirError `unsupported` for any other layout
 */
export function writeLongState(known: Uint8Array, tokens: number, file: string): void {
  const { kind, rows } = readState(known)
  const handle = openSync(file, 'w')
  try {
    const text = new Array<number>(tokens).fill(1)
    const cells = Array.from({ length: tokens }, (_, i) => [i, 1, 0]).flat()
    writeSync(handle, words([kind, version, tokens, ...text, 1, tokens, ...cells, 0, rows.length / 2]))
    const block = new Uint8Array(Uint16Array.from(randomValues(1 << 19), f32ToF16).buffer)
    for (const bytes of rows) {
      writeSync(handle, words([f16, bytes, 0]))
      for (let left = tokens * bytes; left > 0; left -= block.length) {
        writeSync(handle, block, 0, Math.min(left, block.length))
      }
    }
  } finally {
    closeSync(handle)
  }
}

/** Bytes of a row of each layer's keys, then of each layer's values. */
function readState(bytes: Uint8Array): { kind: number; rows: number[] } {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  let at = 0
  const next = (what: string, expected?: number): number => {
    const value = at + 4 <= bytes.length ? view.getUint32(at, true) : undefined
    at += 4
    if (value !== undefined && (expected === undefined || value === expected)) return value
    const message = `expected a saved sequence of llama.cpp with ${expected ?? 'a number'} for ${what}, got ${value}`
    throw new KvasirError('unsupported', 'bench', message)
  }
  const kind = next('its kind')
  next('its version', version)
  const tokens = next('tokens')
  at += 4 * tokens
  next('streams', 1)
  const cells = next('cells')
  for (let i = 0; i < cells; i++) {
    next('a position', i)
    next('the sequences of a cell', 1)
    next('a sequence', 0)
  }
  next('transposed values', 0)
  const layers = next('layers')
  const rows: number[] = []
  for (let i = 0; i < 2 * layers; i++) {
    next('the type of keys and values', f16)
    const size = next('bytes of a row')
    next('bytes of a row beyond 4 GiB', 0)
    rows.push(size)
    at += cells * size
  }
  if (at !== bytes.length) {
    throw new KvasirError('unsupported', 'bench', `expected ${at} bytes of a saved sequence, got ${bytes.length}`)
  }
  return { kind, rows }
}

const words = (values: readonly number[]): Uint8Array => new Uint8Array(Uint32Array.from(values).buffer)

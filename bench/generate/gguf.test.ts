/** What is written for llama.cpp, read back byte by byte. That llama.cpp computes the same with it, the bench itself checks. */
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { afterAll, beforeAll, expect, test, vi } from 'vitest'
import { openWeights, readTensor } from '../../src/onnx/index.ts'
import { f16ToF32 } from '../../src/tensor/float16.ts'
import { writeGguf } from './gguf.ts'
import { writeLongState } from './llama-state.ts'
import { prepareModel } from './models.ts'
import { type ShapeConfig, shapes } from './shapes.ts'

const folder = mkdtempSync(join(tmpdir(), 'kvasir-bench-test-'))
const file = join(folder, 'model.gguf')
let checkpoint: string
beforeAll(async () => {
  vi.stubEnv('KVASIR_CACHE', folder)
  checkpoint = join(dirname((await prepareModel('tiny', 'f32')).folder), 'checkpoint')
})
afterAll(() => {
  vi.unstubAllEnvs()
  rmSync(folder, { recursive: true, force: true })
})

interface Found {
  readonly dims: readonly number[]
  readonly type: number
  readonly bytes: Uint8Array
}

/** A reader of its own, by the format: keys are passed over. */
function readGguf(): Map<string, Found> {
  const bytes = readFileSync(file)
  let at = 0
  const take = (length: number): Buffer => {
    at += length
    return bytes.subarray(at - length, at)
  }
  const word = () => take(4).readUInt32LE()
  const long = () => Number(take(8).readBigUInt64LE())
  const text = () => take(long()).toString('utf8')
  const skip = (kind: number): void => {
    if (kind === 8) text()
    else if (kind !== 9) at += 4
    else for (let inner = word(), count = long(); count > 0; count--) skip(inner)
  }
  expect([bytes.toString('latin1', 0, 4), bytes.readUInt32LE(4)]).toEqual(['GGUF', 3])
  at = 8
  const [tensors, keys] = [long(), long()]
  for (let i = 0; i < keys; i++) {
    text()
    skip(word())
  }
  const list = Array.from({ length: tensors }, () => {
    const name = text()
    const dims = Array.from({ length: word() }, long)
    return { name, dims, type: word(), offset: long() }
  })
  const start = Math.ceil(at / 32) * 32
  return new Map(list.map((entry) => [entry.name, { ...entry, bytes: bytes.subarray(start + entry.offset) }]))
}

const plain = async (name: string): Promise<Float32Array> => readTensor((await openWeights(checkpoint)).get(name)!)

test('weights in f32 are those of the checkpoint', async () => {
  await writeGguf(checkpoint, file, shapes.tiny, 'f32')
  const found = readGguf()
  expect(found.size).toBe(2 + 2 * 11)
  const { dims, type, bytes } = found.get('blk.1.ffn_gate.weight')!
  expect({ dims, type }).toEqual({ dims: [64, 128], type: 0 })
  const values = new Float32Array(new Uint8Array(bytes.subarray(0, 4 * 64 * 128)).buffer)
  expect(values).toEqual(await plain('model.layers.1.mlp.gate_proj.weight'))
})

test('llama.cpp turns neighbours: rows of queries and keys of Llama are interleaved', async () => {
  await writeGguf(checkpoint, file, { ...shapes.tiny, model_type: 'llama' } as ShapeConfig, 'f32')
  const { bytes } = readGguf().get('blk.0.attn_k.weight')!
  const values = new Float32Array(new Uint8Array(bytes.subarray(0, 4 * 32 * 64)).buffer)
  const expected = await plain('model.layers.0.self_attn.k_proj.weight')
  const row = (all: Float32Array, i: number) => all.subarray(i * 64, (i + 1) * 64)
  // The second head, D = 16: rows 16, 24, 17, 25, ...
  expect(row(values, 16)).toEqual(row(expected, 16))
  expect(row(values, 17)).toEqual(row(expected, 24))
  expect(row(values, 18)).toEqual(row(expected, 17))
})

test.each([
  ['int4', 2, 18, 1 / 8],
  ['int8', 8, 34, 1 / 128],
] as const)('blocks of %s are the weights, rounded', async (weights, type, size, step) => {
  await writeGguf(checkpoint, file, shapes.tiny, weights)
  const found = readGguf().get('blk.0.attn_q.weight')!
  expect(found.type).toBe(type)
  const expected = await plain('model.layers.0.self_attn.q_proj.weight')
  for (let block = 0; block < expected.length / 32; block++) {
    const bytes = found.bytes.subarray(block * size, (block + 1) * size)
    const scale = f16ToF32(bytes[0]! | (bytes[1]! << 8))
    const code = (i: number): number => {
      if (type === 8) return (bytes[2 + i]! << 24) >> 24
      return ((bytes[2 + (i % 16)]! >> (i < 16 ? 0 : 4)) & 15) - 8
    }
    const own = expected.subarray(block * 32, (block + 1) * 32)
    const most = Math.max(...own.map(Math.abs))
    for (let i = 0; i < 32; i++) expect(Math.abs(code(i) * scale - own[i]!)).toBeLessThanOrEqual(1.01 * step * most)
  }
})

/** Two layers of 3 tokens, 8 bytes a row of keys and of values. */
const known = (changes: Readonly<Record<number, number>> = {}) => {
  const rows = [1, 8, 0, 1, 2, 3, 4, 5, 6]
  const numbers = [7, 3, 3, 9, 9, 9, 1, 3, 0, 1, 0, 1, 1, 0, 2, 1, 0, 0, 2, ...rows, ...rows, ...rows, ...rows]
  return new Uint8Array(Uint32Array.from(numbers, (number, i) => changes[i] ?? number).buffer)
}

test('a saved sequence becomes longer, and is one again', () => {
  const long = join(folder, 'long')
  writeLongState(known(), 5, long)
  const bytes = readFileSync(long)
  expect(bytes.length).toBe(4 * (3 + 5 + 2 + 15 + 2 + 4 * (3 + 10)))
  writeLongState(bytes, 3, long)
  expect(readFileSync(long).length).toBe(known().length)
})

test.each([
  [{ 1: 4 }, 'expected a saved sequence of llama.cpp with 3 for its version, got 4'],
  [{ 17: 1 }, 'with 0 for transposed values, got 1'],
  [{ 18: 3 }, 'with 1 for the type of keys and values, got undefined'],
  [{ 18: 1 }, 'expected 148 bytes of a saved sequence, got 220'],
])('other layouts are refused: %j', (changes, message) => {
  expect(() => writeLongState(known(changes), 5, join(folder, 'long'))).toThrow(message)
})

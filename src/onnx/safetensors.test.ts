import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import fc from 'fast-check'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { isKvasirError } from '../tensor/error.ts'
import { readSafetensorsHeader } from './safetensors.ts'

let folder = ''
let count = 0
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'kvasir-safetensors-'))
})
afterAll(() => rm(folder, { recursive: true }))

/** Writes length prefix, header and `dataBytes` zeros, and reads them back. */
async function read(header: string | Uint8Array, dataBytes = 0, prefix?: bigint) {
  const bytes = typeof header === 'string' ? new TextEncoder().encode(header) : header
  const file = new Uint8Array(8 + bytes.length + dataBytes)
  new DataView(file.buffer).setBigUint64(0, prefix ?? BigInt(bytes.length), true)
  file.set(bytes, 8)
  return readFileOf(file)
}

async function readFileOf(bytes: Uint8Array) {
  const path = join(folder, `${count++}.safetensors`)
  await writeFile(path, bytes)
  return readSafetensorsHeader(path)
}

const entry = (dtype: string, shape: unknown, begin: unknown, end: unknown): string =>
  JSON.stringify({ dtype, shape, data_offsets: [begin, end] })

describe('the safetensors header', () => {
  it('says where each tensor lies, in the order of bytes', async () => {
    const header = `{"b":${entry('F32', [2, 3], 4, 28)},"a":${entry('U8', [4], 0, 4)}}  \n`
    const tensors = await read(header, 28)
    expect([...tensors.keys()]).toEqual(['a', 'b'])
    const start = 8 + header.length
    expect(tensors.get('b')).toMatchObject({ dtype: 'F32', shape: [2, 3], offset: start + 4, byteLength: 24 })
  })

  const accepted: Record<string, [string, number]> = {
    'no tensors': ['{}', 0],
    'metadata of strings': ['{"__metadata__":{"format":"pt"}}', 0],
    'null for metadata': ['{"__metadata__":null}', 0],
    'leading white space': [' \n{}', 0],
    'a scalar': [`{"a":${entry('F64', [], 0, 8)}}`, 8],
    'tensors of no elements': [`{"a":${entry('F32', [0, 7], 0, 0)},"b":${entry('I8', [1], 0, 1)}}`, 1],
    'fields that it does not know': ['{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1],"more":1}}', 1],
    'twice the same key': [`{"a":${entry('U8', [1], 0, 1)},"a":${entry('U8', [1], 0, 1)}}`, 1],
    'an even count of half bytes': [`{"a":${entry('F4', [6], 0, 3)}}`, 3],
    'a tensor called __proto__': [`{"__proto__":${entry('U8', [1], 0, 1)}}`, 1],
    'a tensor called constructor': [`{"constructor":${entry('U8', [1], 0, 1)}}`, 1],
  }
  for (const [name, [header, dataBytes]] of Object.entries(accepted)) {
    it(`accepts ${name}`, async () => {
      const tensors = await read(header, dataBytes)
      const total = [...tensors.values()].reduce((sum, { byteLength }) => sum + byteLength, 0)
      expect(total).toBe(dataBytes)
    })
  }

  const big = 2 ** 40
  const refused: Record<string, [string, number, string]> = {
    'an array': ['[]', 0, 'expected a JSON object'],
    'padding with NUL': ['{}\0', 0, 'expected a header of JSON'],
    'an empty header': ['', 0, 'expected a header of JSON'],
    'a BOM': ['\ufeff{}', 0, 'expected a header of JSON'],
    'a missing field': ['{"a":{"dtype":"U8","shape":[1]}}', 1, 'expected data_offsets'],
    'a tensor that is no object': ['{"a":3}', 0, 'expected an object for tensor "a"'],
    'a dtype in lower case': [
      `{"a":${entry('f32', [1], 0, 4)}}`,
      4,
      'expected a known dtype for tensor "a", got "f32"',
    ],
    'a dtype named toString': [`{"a":${entry('toString', [1], 0, 4)}}`, 4, 'expected a known dtype'],
    'a negative dimension': [`{"a":${entry('U8', [-1], 0, 1)}}`, 1, 'expected integers as shape of tensor "a"'],
    'a fraction as dimension': [`{"a":${entry('U8', [0.5], 0, 1)}}`, 1, 'expected integers as shape'],
    'a dimension above 2^53': ['{"a":{"dtype":"U8","shape":[9007199254740993],"data_offsets":[0,1]}}', 1, 'integers'],
    'a shape that is no array': [`{"a":${entry('U8', 1, 0, 1)}}`, 1, 'expected integers as shape'],
    'offsets that are text': [`{"a":${entry('U8', [1], '0', '1')}}`, 1, 'expected data_offsets'],
    'three offsets': ['{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1,2]}}', 1, 'expected data_offsets'],
    'an end before the begin': [`{"a":${entry('U8', [1], 1, 0)}}`, 1, 'expected data_offsets'],
    'metadata that is no text': ['{"__metadata__":{"a":1}}', 0, 'expected a string for __metadata__ key "a"'],
    'metadata that is an array': ['{"__metadata__":[]}', 0, 'expected an object for __metadata__'],
    'a hole': [`{"a":${entry('U8', [1], 0, 1)},"b":${entry('U8', [1], 2, 3)}}`, 3, 'expected tensor "b" to begin'],
    'a hole at the start': [`{"a":${entry('U8', [1], 1, 2)}}`, 2, 'expected tensor "a" to begin'],
    'an overlap': [`{"a":${entry('U8', [2], 0, 2)},"b":${entry('U8', [2], 1, 3)}}`, 3, 'expected tensor "b" to begin'],
    'two names for the same bytes': [`{"a":${entry('U8', [2], 0, 2)},"b":${entry('U8', [2], 0, 2)}}`, 2, 'to begin'],
    'an overflow of the shape': [`{"a":${entry('U8', [big, big, 0], 0, 0)}}`, 0, 'expected a size below 2^64 bits'],
    'an odd count of half bytes': [`{"a":${entry('F4', [5], 0, 3)}}`, 3, 'expected whole bytes for tensor "a"'],
    'a size that does not fit the shape': [`{"a":${entry('F32', [2], 0, 4)}}`, 4, 'expected 8 bytes for tensor "a"'],
    'data that is too short': [`{"a":${entry('F32', [2], 0, 8)}}`, 7, 'expected tensors up to the end'],
    'trailing bytes': [`{"a":${entry('F32', [2], 0, 8)}}`, 9, 'expected tensors up to the end'],
    'trailing bytes after nothing': ['{}', 1, 'expected tensors up to the end'],
  }
  for (const [name, [header, dataBytes, message]] of Object.entries(refused)) {
    it(`refuses ${name}`, async () => {
      await expect(read(header, dataBytes)).rejects.toThrow(message)
    })
  }

  it('refuses files that end inside the length or the header, and headers that are too long', async () => {
    await expect(readFileOf(new Uint8Array(7))).rejects.toThrow('expected at least 8 bytes, got 7')
    await expect(read('{}', 0, 3n)).rejects.toThrow('expected a header of 3 bytes, got a file of 10 bytes')
    await expect(read('{}', 0, 100_000_001n)).rejects.toThrow('at most 100 MB')
    await expect(read('{}', 0, 2n ** 64n - 1n)).rejects.toThrow('at most 100 MB')
    await expect(read(Uint8Array.of(0x7b, 0xff, 0x7d))).rejects.toThrow('expected a header of JSON')
    await expect(readSafetensorsHeader(join(folder, 'absent'))).rejects.toThrow('expected a readable file')
  })

  it('survives deeply nested JSON', async () => {
    await expect(read(`{"a":${'['.repeat(50_000)}${']'.repeat(50_000)}}`)).rejects.toThrow('[kvasir:safetensors]')
  })

  it('answers damaged headers with tensors inside the file or a KvasirError', async () => {
    const header = `{"a":${entry('F32', [2, 3], 0, 24)},"b":${entry('BF16', [4], 24, 32)}}`
    const original = new Uint8Array(8 + header.length + 32)
    original.set([header.length])
    original.set(new TextEncoder().encode(header), 8)
    const position = fc.nat(original.length - 1)
    const damage = fc.tuple(fc.array(fc.tuple(position, fc.nat(255)), { minLength: 1, maxLength: 3 }), fc.nat(40))
    await fc.assert(
      fc.asyncProperty(damage, async ([changes, cut]) => {
        const bytes = original.slice(0, cut > 32 ? original.length : original.length - cut)
        for (const [at, value] of changes) if (at < bytes.length) bytes[at] = value
        try {
          for (const tensor of (await readFileOf(bytes)).values()) {
            expect(tensor.offset + tensor.byteLength).toBeLessThanOrEqual(bytes.length)
          }
        } catch (error) {
          expect(isKvasirError(error) && error.code).toBe('invalid-file')
        }
      }),
      { numRuns: 500 },
    )
  })
})

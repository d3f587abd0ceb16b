import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { openEntry, sealEntry } from './entry.ts'

const key = fc.string({ unit: fc.constantFrom(...'abz019:/-_'), minLength: 1, maxLength: 40 })
const bytes = fc.uint8Array({ maxLength: 200 })

describe('an entry', () => {
  it('gives back the parts of a blob, joined', () => {
    fc.assert(
      fc.property(key, fc.array(bytes, { maxLength: 4 }), (name, parts) => {
        const sealed = sealEntry({ key: name, parts })
        expect([...(openEntry(name, sealed.bytes) as Uint8Array)]).toEqual(parts.flatMap((part) => [...part]))
      }),
    )
  })

  it('is refused when it is of another key, cut off, longer, or has one wrong bit', () => {
    fc.assert(
      fc.property(key, key, bytes, fc.nat(), (name, other, body, at) => {
        const { bytes: sealed } = sealEntry({ key: name, parts: [body] })
        if (other !== name) expect(openEntry(other, sealed)).toBeUndefined()
        expect(openEntry(name, sealed.subarray(0, at % sealed.length))).toBeUndefined()
        expect(openEntry(name, Uint8Array.of(...sealed, 0))).toBeUndefined()
        const flipped = sealed.slice()
        const bit = at % (8 * sealed.length)
        flipped[bit >> 3] = (flipped[bit >> 3] as number) ^ (1 << (bit & 7))
        expect(openEntry(name, flipped)).toBeUndefined()
      }),
      { numRuns: 2000 },
    )
  })

  it.each(['', 'a b', 'ä', 'x'.repeat(513), 5])('has no key like %j', (name) => {
    expect(() => sealEntry({ key: name as string, parts: [] })).toThrow('expected a key of 1 to 512 printable ASCII')
  })

  it('starts its body at a multiple of 8 bytes, so that numbers can be read in place', () => {
    for (const name of ['a', 'abcd', 'abcdefghi']) {
      const { bytes: sealed } = sealEntry({ key: name, parts: [Uint8Array.of(1)] })
      expect((openEntry(name, sealed) as Uint8Array).byteOffset % 8).toBe(0)
    }
  })
})

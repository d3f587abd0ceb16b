import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { fillRotaryTable, type RotaryEncoding, rerotationTable, rotaryEncoding, rotateVectors } from './index.ts'
import { expectClose, turn } from './testing/helpers.ts'

const pairings = { half: {}, interleaved: { rope_interleave: true } }
const lists = { short_factor: [1, 1, 1], long_factor: [1.5, 3, 7] }
const yarn = { rope_type: 'yarn', factor: 4, original_max_position_embeddings: 64 }

/** One of each kind that matters to rotation: plain, partial, with a factor, with tables by length. */
const configs: Record<string, Record<string, unknown>> = {
  plain: {},
  partial: { partial_rotary_factor: 0.5 },
  'with an attention factor': { rope_scaling: yarn },
  dynamic: { max_position_embeddings: 32, rope_scaling: { rope_type: 'dynamic', factor: 4 } },
  longrope: {
    ...{ max_position_embeddings: 256, partial_rotary_factor: 0.75, original_max_position_embeddings: 64 },
    rope_scaling: { rope_type: 'longrope', ...lists },
  },
}
const encodings = Object.entries(configs).flatMap(([name, config]) =>
  Object.entries(pairings).map(([pairing, flag]) => ({
    ...{ name: `${name}, ${pairing}`, encoding: rotaryEncoding({ ...config, ...flag }, 8) },
  })),
)
const vector = fc.array(fc.double({ min: -2, max: 2, noNaN: true }), { minLength: 8, maxLength: 8 })
const position = fc.nat(5000)

function tableOf(encoding: RotaryEncoding, positions: readonly number[], length: number) {
  const size = positions.length * encoding.pairs
  const table = { cos: new Float32Array(size), sin: new Float32Array(size) }
  fillRotaryTable(encoding.at(length), positions, table.cos, table.sin)
  return table
}

describe('rotation', () => {
  const q = [1, 2, 3, 4, 5, 6, 7, 8]

  it('turns the published examples', () => {
    const half = [
      -1.695592537, 0.137551738, 2.7886816, 3.975982036, -4.808842475, 6.323059348, 7.086836737, 8.011963982,
    ]
    expectClose(turn(q, rotaryEncoding({}, 8), 3), half, 1e-6)
    const neighbours = [
      -1.272232513, -1.838864985, 1.683928641, 4.707906576, 4.817777168, 6.147277704, 6.975968536, 8.020963969,
    ]
    expectClose(turn(q, rotaryEncoding({ rope_interleave: true }, 8), 3), neighbours, 1e-6)
    const partial = [-1.413352521, 1.879118067, -2.828857482, 4.058191135, 5, 6, 7, 8]
    expectClose(turn(q, rotaryEncoding({ partial_rotary_factor: 0.5 }, 8), 3), partial, 1e-6)
  })

  it('stays exact up to position 2^31', () => {
    const encoding = rotaryEncoding({}, 128)
    const far = 2 ** 31 - 1
    const { cos, sin } = tableOf(encoding, [far], far + 1)
    // An independent way: exact products in integers, reduced by whole turns.
    for (const [i, frequency] of encoding.at(far + 1).inverseFrequencies.entries()) {
      const turns = (BigInt(far) * BigInt(Math.round(frequency * 2 ** 52))) % BigInt(Math.round(2 * Math.PI * 2 ** 52))
      const expected = Number(turns) / 2 ** 52
      expect(Math.abs(cos[i]! - Math.cos(expected))).toBeLessThan(2e-6)
      expect(Math.abs(sin[i]! - Math.sin(expected))).toBeLessThan(2e-6)
    }
  })

  it.each(encodings)('makes scores depend on the distance alone: $name', ({ encoding }) => {
    fc.assert(
      fc.property(vector, vector, position, position, position, (a, b, i, j, shift) => {
        const length = 20000
        const score = (p: number, r: number): number => {
          const y = turn(b, encoding, r, length)
          return turn(a, encoding, p, length).reduce((sum, value, d) => sum + value * y[d]!, 0)
        }
        expect(Math.abs(score(i, j) - score(i + shift, j + shift))).toBeLessThan(2e-5)
      }),
    )
  })

  it.each(encodings)('leaves what lies beyond the rotary width alone: $name', ({ encoding }) => {
    fc.assert(
      fc.property(vector, position, (a, p) => {
        const rest = 2 * encoding.pairs
        expect([...turn(a, encoding, p).subarray(rest)]).toEqual(a.slice(rest))
      }),
    )
  })

  it.each(encodings)('is undone by its inverse: $name', ({ encoding }) => {
    const interleaved = encoding.pairing === 'interleaved'
    fc.assert(
      fc.property(fc.array(vector, { minLength: 6, maxLength: 6 }), position, (heads, first) => {
        const original = Float32Array.from(heads.flat())
        const table = tableOf(encoding, [first, first + 1, first + 2], first + 3)
        const shape = { ...table, numTokens: 3, numHeads: 2, headDim: 8 }
        const turned = original.slice()
        rotateVectors(turned, shape, { interleaved })
        const back = turned.slice()
        rotateVectors(back, shape, { interleaved, inverse: true })
        for (const [i, value] of original.entries()) expect(Math.abs(back[i]! - value)).toBeLessThan(1e-6)
        const moved = first > 0 && original.some((value, i) => i % 8 < 2 && Math.abs(value) > 0.1)
        if (moved) expect(turned).not.toEqual(original)
      }),
    )
  })

  it.each(encodings)('moves a key by the difference of positions: $name', ({ encoding }) => {
    const interleaved = encoding.pairing === 'interleaved'
    const length = 12000
    fc.assert(
      fc.property(vector, position, position, (a, from, to) => {
        const key = turn(a, encoding, from, length)
        const move = rerotationTable(encoding, [from], [to], { from: length, to: length })
        rotateVectors(key, { ...move, numTokens: 1, numHeads: 1, headDim: 8 }, { interleaved })
        const expected = turn(a, encoding, to, length)
        for (const [d, value] of expected.entries()) expect(Math.abs(key[d]! - value)).toBeLessThan(2e-6)
      }),
    )
  })

  it('gives keys of a short text the table of a long one', () => {
    const scale = { short_mscale: 1.1, long_mscale: 1.3 }
    const config = { ...configs.longrope, rope_scaling: { rope_type: 'longrope', ...lists, ...scale } }
    for (const encoding of [configs.longrope!, config, configs.dynamic!].map((one) => rotaryEncoding(one, 8))) {
      const move = rerotationTable(encoding, [20, 21], [20, 5], { from: 30, to: 100 })
      const keys = Float64Array.from([
        ...turn([1, 2, 3, 4, 5, 6, 7, 8], encoding, 20, 30),
        ...turn([8, 7, 6, 5, 4, 3, 2, 1], encoding, 21, 30),
      ])
      rotateVectors(keys, { ...move, numTokens: 2, numHeads: 1, headDim: 8 })
      expectClose(keys.subarray(0, 8), [...turn([1, 2, 3, 4, 5, 6, 7, 8], encoding, 20, 100)], 1e-6)
      expectClose(keys.subarray(8), [...turn([8, 7, 6, 5, 4, 3, 2, 1], encoding, 5, 100)], 1e-6)
    }
  })

  it('moves keys that an attention factor of 0 has wiped out without making NaN of them', () => {
    const encoding = rotaryEncoding({ rope_scaling: { ...yarn, attention_factor: 0 } }, 8)
    expect(rerotationTable(encoding, [3], [3])).toEqual({ cos: new Float32Array(4).fill(1), sin: new Float32Array(4) })
  })

  it('refuses what does not fit together', () => {
    const vectors = new Float32Array(16)
    const [cos, sin] = [new Float32Array(4).fill(1), new Float32Array(4)]
    const shape = { cos, sin, numTokens: 2, numHeads: 1, headDim: 8 }
    const rotate = (change: object, options = {}) => rotateVectors(vectors, { ...shape, ...change }, options)
    expect(() => rotate({ numTokens: 3 })).toThrow('expected 24 numbers in vectors, got 16')
    expect(() => rotate({ headDim: 0 })).toThrow('expected an integer of at least 1 for headDim, got 0')
    expect(() => rotate({ sin: new Float32Array(3) })).toThrow('expected 4 numbers in sin, as in cos, got 3')
    const wide = new Float32Array(10)
    expect(() => rotate({ cos: wide, sin: wide })).toThrow('expected a multiple of 2 up to 8 numbers in cos, got 10')
    const odd = new Float32Array(3)
    expect(() => rotate({ cos: odd, sin: odd })).toThrow('numbers in cos, got 3')
    expect(() => rotate({}, { interleave: true })).toThrow('(did you mean "interleaved"?)')
    expect(() => rotate({}, { interleaved: 'yes' })).toThrow('expected true or false for interleaved, got "yes"')
    expect(() => rotate({ interleaved: true })).toThrow('unknown option "interleaved"')
    expect(() => rotate({ cos: [1, 1, 1, 1] })).toThrow('expected a Float32Array for cos, got an array of 4')
    const bits = new Uint16Array(16) as never
    expect(() => rotateVectors(bits, shape)).toThrow('a Float64Array for vectors, got a Uint16Array')
    expect(() => rotateVectors(vectors, undefined as never)).toThrow('numTokens, numHeads, headDim }, got undefined')
    vectors.fill(3)
    expect(() => rotate({ cos: Float32Array.of(1, 1, 1, 0) }, { inverse: true })).toThrow('that can be undone')
    expect(vectors.every((value) => value === 3)).toBe(true)
    rotateVectors(new Float32Array(0), {
      cos: odd.subarray(0, 0),
      sin: odd.subarray(0, 0),
      numTokens: 0,
      numHeads: 1,
      headDim: 8,
    })
  })

  it('refuses moves that are not whole', () => {
    expect(() => rerotationTable(rotaryEncoding({}, 8), [1, 2], [1])).toThrow('expected 2 positions in to, got 1')
    const dynamic = rotaryEncoding(configs.dynamic!, 8)
    expect(() => rerotationTable(dynamic, [1], [2])).toThrow('expected lengths for rope_type "dynamic", got undefined')
  })
})

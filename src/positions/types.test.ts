import { readdirSync, readFileSync } from 'node:fs'
import { describe, expect, it } from 'vitest'
import { rotaryEncoding, rotaryEncodings } from './index.ts'
import { expectFrequencies, frequencies } from './testing/helpers.ts'

const scaled = (rope_theta: number, rope_scaling: Record<string, unknown>) => ({ rope_theta, rope_scaling })

describe('the table of types', () => {
  it('has every encoding file, under its name', () => {
    const others = [
      'alibi',
      'check-arrays',
      'config',
      'contract',
      'families',
      'frequencies',
      'index',
      'layers',
      'parameters',
    ]
    others.push('rotate', 'table', 'testing')
    const files = readdirSync(new URL('.', import.meta.url)).filter((name) => !name.includes('.test.'))
    const names = files.map((name) => name.replace('.ts', '')).filter((name) => !others.includes(name))
    expect(Object.keys(rotaryEncodings).sort()).toEqual(names.sort())
  })

  it('is described in docs/positions.md', () => {
    const text = readFileSync(new URL('../../docs/positions.md', import.meta.url), 'utf8')
    for (const name of Object.keys(rotaryEncodings)) expect(text).toContain(`| \`${name}\``)
  })

  it('knows other names of some', () => {
    const lists = { short_factor: [1], long_factor: [2], factor: 2 }
    const config = { max_position_embeddings: 8, rope_scaling: { type: 'su', ...lists } }
    expect(rotaryEncoding(config, 2).name).toBe('longrope')
    const streams = { rope_scaling: { type: 'mrope', mrope_section: [16, 24, 24] }, rope_theta: 1e6 }
    expect(rotaryEncoding(streams, 128).name).toBe('default')
    expect(frequencies(streams, 128)).toEqual(frequencies({ rope_theta: 1e6 }, 128))
  })
})

describe('plain RoPE', () => {
  it('has the published inverse frequencies', () => {
    const at = (rope_theta: number, width: number) => frequencies({ rope_theta }, width)
    expectFrequencies(at(1e4, 128), { 1: 0.865964323, 31: 0.0115478198, 63: 1.15478198e-4 })
    expectFrequencies(at(5e5, 64), { 1: 0.663601238, 15: 0.00213111954, 31: 3.01385815e-6 })
    expectFrequencies(at(1e6, 128), { 1: 0.805842188, 32: 0.001, 63: 1.24093776e-6 })
    expectFrequencies(at(1e4, 32), { 1: 0.562341325, 8: 0.01, 15: 1.77827941e-4 })
  })

  it('truncates the partial width', () => {
    const pairs = (headDim: number, factor: number): number =>
      rotaryEncoding({ partial_rotary_factor: factor }, headDim).pairs
    expect([pairs(80, 0.4), pairs(96, 0.75), pairs(128, 0.75), pairs(64, 0.25), pairs(128, 0.5)]).toEqual([
      16, 36, 48, 8, 32,
    ])
  })
})

describe('linear', () => {
  it('has the published inverse frequencies', () => {
    const four = frequencies(scaled(1e4, { rope_type: 'linear', factor: 4 }), 128)
    expectFrequencies(four, { 0: 0.25, 1: 0.216491081, 31: 0.00288695496, 63: 2.88695496e-5 })
    const eight = frequencies(scaled(1e6, { type: 'linear', factor: 8 }), 256)
    expectFrequencies(eight, { 0: 0.125, 1: 0.112210892, 64: 1.25e-4, 127: 1.39246732e-7 })
  })
})

describe('llama3', () => {
  it('has nothing between equal ends, as Llama 4 Scout has them', () => {
    const ends = { low_freq_factor: 1, high_freq_factor: 1, original_max_position_embeddings: 8192 }
    const scout = frequencies(scaled(5e5, { rope_type: 'llama3', factor: 16, ...ends }), 128)
    const plain = frequencies({ rope_theta: 5e5 }, 128)
    // Pairs that turn at least once within 8,192 tokens stay.
    const expected = plain.map((frequency) => (8192 * frequency >= 2 * Math.PI ? frequency : frequency / 16))
    expect([...scout]).toEqual([...expected])
    expect(expected.findIndex((frequency, i) => frequency !== plain[i])).toBe(35)
  })

  const llama3 = {
    rope_type: 'llama3',
    low_freq_factor: 1,
    high_freq_factor: 4,
    original_max_position_embeddings: 8192,
  }

  it('has the published inverse frequencies', () => {
    const large = frequencies(scaled(5e5, { ...llama3, factor: 8 }), 128)
    expectFrequencies(large, {
      ...{ 1: 0.814617234, 28: 0.00321144599, 29: 0.00216657076, 30: 0.00137189357, 32: 5.24846161e-4 },
      ...{ 34: 1.78507813e-4, 35: 9.55621235e-5, 36: 7.78465527e-5, 38: 5.16590687e-5, 63: 3.06892599e-7 },
    })
    const small = frequencies(scaled(5e5, { ...llama3, factor: 32 }), 64)
    expectFrequencies(small, {
      ...{ 14: 0.00321144599, 15: 0.00129054793, 16: 4.29556797e-4, 17: 9.7082878e-5, 18: 1.94616382e-5 },
      ...{ 19: 1.29147672e-5, 31: 9.41830673e-8 },
    })
    const plain = frequencies({ rope_theta: 5e5 }, 128)
    expect([...large.subarray(0, 29)]).toEqual([...plain.subarray(0, 29)])
    expect([...large.subarray(35)]).toEqual([...plain.subarray(35)].map((value) => value / 8))
  })
})

describe('proportional', () => {
  it('has the published inverse frequencies', () => {
    const quarter = { rope_parameters: { rope_type: 'proportional', rope_theta: 1e6, partial_rotary_factor: 0.25 } }
    const gemma = frequencies(quarter, 512)
    expect([gemma.length, gemma.filter((value) => value > 0).length]).toEqual([256, 64])
    expectFrequencies(gemma, { 1: 0.947463526, 32: 0.177827941, 63: 0.0333762469 })
    expect(gemma.subarray(64).every((value) => value === 0)).toBe(true)
    const half = frequencies(scaled(1e4, { rope_type: 'proportional', partial_rotary_factor: 0.5, factor: 8 }), 256)
    expectFrequencies(half, { 0: 0.125, 1: 0.116321505, 63: 0.00134325979 })
    expect([half.length, half.subarray(64).every((value) => value === 0)]).toEqual([128, true])
  })

  it('takes a share that would leave other types an odd width', () => {
    const third = { rope_parameters: { rope_type: 'proportional', partial_rotary_factor: 0.4 } }
    expect(frequencies(third, 8).filter((value) => value > 0).length).toBe(1)
  })
})

import { describe, expect, it } from 'vitest'
import { rotaryEncoding } from './index.ts'

const thetaOf = (config: Record<string, unknown>): number =>
  1 / rotaryEncoding(config, 4).at(1).inverseFrequencies[1]! ** 2

describe('the rotary part of config.json', () => {
  it('is found in old and new places; the old dictionary wins, outer keys fill gaps', () => {
    expect(thetaOf({})).toBeCloseTo(1e4)
    expect(thetaOf({ rope_theta: 500 })).toBeCloseTo(500)
    expect(thetaOf({ rope_parameters: { rope_type: 'default', rope_theta: 600 } })).toBeCloseTo(600)
    expect(thetaOf({ rope_theta: 500, rope_parameters: { rope_type: 'default', rope_theta: 600 } })).toBeCloseTo(600)
    expect(thetaOf({ rope_theta: 500, rope_parameters: { rope_type: 'default' } })).toBeCloseTo(500)
    const both = { rope_scaling: { type: 'default' }, rope_parameters: { rope_type: 'yarn' }, rope_theta: 700 }
    expect(thetaOf(both)).toBeCloseTo(700)
    expect(thetaOf({ rope_scaling: null, rope_theta: 500 })).toBeCloseTo(500)
    expect(thetaOf({ rope_scaling: {}, rope_parameters: { rope_theta: 600 } })).toBeCloseTo(600)
    expect(thetaOf({ rotary_emb_base: 800 })).toBeCloseTo(800)
  })

  it('takes the partial width from the dictionary, then from beside it, then from older keys', () => {
    const pairs = (config: Record<string, unknown>): number => rotaryEncoding(config, 64).pairs
    expect(pairs({ partial_rotary_factor: 0.5 })).toBe(16)
    expect(pairs({ partial_rotary_factor: 0.5, rope_parameters: { partial_rotary_factor: 0.25 } })).toBe(8)
    expect(pairs({ rotary_pct: 0.25 })).toBe(8)
    expect(pairs({ rotary_dim: 24 })).toBe(12)
  })

  it('leaves out what the code of a family says', () => {
    expect(thetaOf({ model_type: 'gpt_oss', rope_parameters: { rope_type: 'default' } })).toBeCloseTo(150000)
    const gpt = rotaryEncoding({ model_type: 'gpt_oss' }, 64)
    expect(gpt.name).toBe('yarn')
    expect(gpt.at(1).attentionFactor).toBeCloseTo(1.34657359, 8)
    expect(rotaryEncoding({ model_type: 'gptj' }, 256)).toMatchObject({ pairs: 32, pairing: 'interleaved' })
    expect(rotaryEncoding({ model_type: 'gpt_neox' }, 64)).toMatchObject({ pairs: 8, pairing: 'half' })
    expect(rotaryEncoding({ model_type: 'glm' }, 128)).toMatchObject({ pairs: 32, pairing: 'interleaved' })
    expect(rotaryEncoding({ model_type: 'toString' }, 64)).toMatchObject({ pairs: 32, pairing: 'half' })
    const lists = { short_factor: [1, 1], long_factor: [2, 2] }
    const phi = { model_type: 'phi3', max_position_embeddings: 131072, rope_scaling: { type: 'yarn', ...lists } }
    expect(rotaryEncoding(phi, 4)).toMatchObject({ name: 'longrope', fixedUpTo: 4096 })
  })

  it('says how components pair', () => {
    const pairing = (config: Record<string, unknown>) => rotaryEncoding(config, 4).pairing
    expect(pairing({})).toBe('half')
    expect(pairing({ rope_interleave: true })).toBe('interleaved')
    expect(pairing({ model_type: 'deepseek_v3' })).toBe('interleaved')
    expect(pairing({ model_type: 'deepseek_v3', rope_interleave: false })).toBe('half')
  })

  const max_position_embeddings = 64
  const typed = (rope_type: string, parameters: Record<string, unknown> = {}) => ({
    max_position_embeddings,
    rope_scaling: { rope_type, ...parameters },
  })
  const llama3 = { factor: 8, low_freq_factor: 1, high_freq_factor: 4 }
  const lists = { short_factor: [1, 2], long_factor: [2, 3], factor: 2 }
  const refused: Record<string, [Record<string, unknown>, string]> = {
    'a type that nobody knows': [typed('jarn'), 'got "jarn" (did you mean "yarn"?)'],
    'a type for images': [typed('axial'), 'expected a rope_type of: default, linear, dynamic, yarn, longrope, llama3'],
    'a type called like a method': [{ rope_scaling: { type: 'toString' } }, 'got "toString"'],
    'a type that is no text': [{ rope_parameters: { rope_type: 3 } }, 'expected a string for rope_type, got 3'],
    'an object where numbers belong': [{ rope_parameters: { main: {} } }, 'got an object at main'],
    'a dictionary that is none': [{ rope_scaling: [] }, 'expected an object for rope_scaling'],
    'theta 0': [{ rope_theta: 0 }, 'expected a number above 0 for rope_theta, got 0'],
    'theta as text': [{ rope_theta: '10000' }, 'expected a number above 0 for rope_theta'],
    'an odd width': [{ partial_rotary_factor: 0.9 }, 'expected an even rotary width in 2..4, got 3'],
    'a width of 0': [{ partial_rotary_factor: 0.1 }, 'expected an even rotary width'],
    'a width above the head': [{ partial_rotary_factor: 2 }, 'expected an even rotary width'],
    'a share that is negative': [{ partial_rotary_factor: -1 }, 'above 0 for partial_rotary_factor, got -1'],
    'a share above 1': [
      typed('proportional', { partial_rotary_factor: 2 }),
      'expected a partial_rotary_factor up to 1',
    ],
    'a flag that is none': [{ rope_interleave: 1 }, 'expected true or false for rope_interleave, got 1'],
    'linear without factor': [typed('linear'), 'expected a number above 0 for factor, got undefined'],
    'factor null': [typed('linear', { factor: null }), 'expected a number above 0 for factor, got undefined'],
    'factor NaN': [typed('dynamic', { factor: Number.NaN }), 'expected a number above 0 for factor, got NaN'],
    'factor 0': [typed('yarn', { factor: 0 }), 'expected a number above 0 for factor, got 0'],
    'a negative factor': [typed('llama3', { ...llama3, factor: -8 }), 'expected a number above 0 for factor, got -8'],
    'an endless factor': [typed('linear', { factor: Number.POSITIVE_INFINITY }), 'for factor, got Infinity'],
    'dynamic without a length': [{ rope_scaling: { type: 'dynamic', factor: 2 } }, 'for max_position_embeddings'],
    'a length of 0': [{ max_position_embeddings: 0 }, 'expected a number above 0 for max_position_embeddings, got 0'],
    'yarn without factor or ratio': [typed('yarn'), 'expected a number above 0 for factor, got undefined'],
    'yarn without a length': [{ rope_scaling: { type: 'yarn', factor: 2 } }, 'for max_position_embeddings'],
    'a negative beta': [typed('yarn', { factor: 2, beta_fast: -1 }), 'at least 0 for beta_fast, got -1'],
    'betas in the wrong order': [
      typed('yarn', { factor: 2, beta_slow: 40 }),
      'beta_fast of at least beta_slow 40, got 32',
    ],
    'truncate as a number': [typed('yarn', { factor: 2, truncate: 0 }), 'true or false for truncate, got 0'],
    'an attention factor below 0': [
      typed('yarn', { factor: 2, attention_factor: -1 }),
      'at least 0 for attention_factor',
    ],
    'yarn with theta 1': [{ ...typed('yarn', { factor: 2 }), rope_theta: 1 }, 'expected a rope_theta above 1'],
    'llama3 without low_freq_factor': [typed('llama3', { factor: 8, high_freq_factor: 4 }), 'for low_freq_factor'],
    'llama3 with ends the wrong way': [
      typed('llama3', { ...llama3, high_freq_factor: 0.5 }),
      'high_freq_factor of at least low_freq_factor 1, got 0.5',
    ],
    'longrope without lists': [typed('longrope', { factor: 2 }), 'a list of 2 numbers for short_factor, got undefined'],
    'a list of the wrong length': [
      typed('longrope', { ...lists, long_factor: [1] }),
      'for long_factor, got an array of 1',
    ],
    'a list with a hole': [
      typed('longrope', { ...lists, long_factor: [1, null] }),
      'above 0 for long_factor[1], got undefined',
    ],
    'a list with 0': [typed('longrope', { ...lists, short_factor: [0, 1] }), 'above 0 for short_factor[0], got 0'],
    'one token of training': [
      { ...typed('longrope', lists), original_max_position_embeddings: 1 },
      'finite attention factor',
    ],
    'frequencies that overflow in long texts only': [
      typed('longrope', { ...lists, long_factor: [1e-310, 1] }),
      'expected parameters with finite frequencies, got Infinity for pair 0',
    ],
    'angles that overflow': [typed('linear', { factor: 1e-308 }), 'expected parameters with finite frequencies'],
    'an attention factor that f32 does not hold': [
      typed('yarn', { factor: 4, attention_factor: 1e39, original_max_position_embeddings: 32 }),
      'finite attention factor, got 1e+39',
    ],
    'frequencies that overflow': [typed('linear', { factor: 1e-310 }), 'expected parameters with finite frequencies'],
  }
  for (const [name, [config, message]] of Object.entries(refused)) {
    it(`is refused with ${name}`, () => {
      expect(() => rotaryEncoding(config, 4)).toThrow(message)
    })
  }

  it('refuses shapes that are none', () => {
    expect(() => rotaryEncoding({}, 0)).toThrow('expected an integer in 1..65536 for headDim, got 0')
    expect(() => rotaryEncoding({}, 4, 0)).toThrow('expected an integer in 1..65536 for numLayers, got 0')
    expect(() => rotaryEncoding(typed('proportional'), 5)).toThrow('expected an even head dim')
    expect(() => rotaryEncoding(typed('dynamic', { factor: 2 }), 2)).toThrow('expected a rotary width of at least 4')
  })
})

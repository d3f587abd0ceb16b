import { describe, expect, it } from 'vitest'
import { layerRotaryEncodings, layerTypes, type RotaryEncoding, rotaryEncoding } from './index.ts'
import { expectFrequencies } from './testing/helpers.ts'

/** L for local, G for global, by theta of what is not scaled; - for layers without rotation. */
const thetas = (encodings: readonly (RotaryEncoding | undefined)[]): (number | undefined)[] =>
  encodings.map((encoding) => encoding && Math.round(encoding.at(1).inverseFrequencies[1]! ** -encoding.pairs))

describe('rotation by layer', () => {
  it('is one shared object where all layers are alike', () => {
    const encodings = layerRotaryEncodings({ rope_theta: 500 }, 3, 8)
    expect(encodings.length).toBe(3)
    expect(new Set(encodings).size).toBe(1)
    expect(rotaryEncoding({ rope_theta: 500 }, 8, 3)).toEqual({ ...encodings[0], at: expect.any(Function) })
  })

  it('is looked at for as many layers as the config names', () => {
    expect(() => rotaryEncoding({ model_type: 'smollm3', num_hidden_layers: 4 }, 8)).toThrow('got layers that differ')
    expect(rotaryEncoding({ model_type: 'smollm3', num_hidden_layers: 3 }, 8).pairs).toBe(4)
    const entry = { rope_theta: 5 }
    const layer_types = ['full_attention', 'sliding_attention']
    const rope_parameters = { full_attention: entry, sliding_attention: entry }
    expect(thetas([rotaryEncoding({ rope_parameters, layer_types }, 8)])).toEqual([5])
  })

  it('does not ask for the types of layers where they make no difference', () => {
    const windows = { layer_types: ['full_attention'], sliding_window_pattern: 'LLLG' }
    expect(new Set(layerRotaryEncodings(windows, 3, 8)).size).toBe(1)
  })

  it('reads Gemma 3 in its old form: scaling is for global layers', () => {
    const config = {
      ...{ model_type: 'gemma3_text', rope_theta: 1e6, rope_local_base_freq: 10000, sliding_window_pattern: 6 },
      rope_scaling: { rope_type: 'linear', factor: 8 },
    }
    const encodings = layerRotaryEncodings(config, 7, 256)
    expect(encodings.map((encoding) => encoding?.name)).toEqual([...new Array(5).fill('default'), 'linear', 'default'])
    expectFrequencies(encodings[5]!.at(1).inverseFrequencies, {
      0: 0.125,
      1: 0.112210892,
      64: 1.25e-4,
      127: 1.39246732e-7,
    })
    expect(new Set(encodings).size).toBe(2)
    expect(thetas(encodings)[0]).toBe(10000)
    expect(() => rotaryEncoding(config, 256, 7)).toThrow('expected one rotary encoding for all layers, got layers that')
  })

  it('reads Gemma 3 in its new form, and what it leaves out', () => {
    const rope_parameters = {
      sliding_attention: { rope_type: 'default', rope_theta: 20000 },
      full_attention: { rope_type: 'default', rope_theta: 2e6 },
    }
    const layer_types = ['full_attention', 'sliding_attention']
    expect(thetas(layerRotaryEncodings({ rope_parameters, layer_types }, 2, 8))).toEqual([2e6, 20000])
    const gemma = { model_type: 'gemma3_text', layer_types }
    expect(thetas(layerRotaryEncodings({ ...gemma, rope_parameters }, 2, 8))).toEqual([2e6, 20000])
    expect(thetas(layerRotaryEncodings(gemma, 2, 8))).toEqual([1e6, 10000])
    expect(thetas(layerRotaryEncodings({ ...gemma, rope_parameters: { sliding_attention: null } }, 2, 8))).toEqual([
      1e6, 10000,
    ])
    const outer = { rope_parameters: { sliding_attention: {}, full_attention: { rope_theta: 7 } }, rope_theta: 9 }
    expect(thetas(layerRotaryEncodings({ ...outer, layer_types }, 2, 8))).toEqual([7, 9])
  })

  it('scales global layers of Gemma 3 by a flat dictionary, beside a nested one too', () => {
    const names = (config: Record<string, unknown>): (string | undefined)[] =>
      layerRotaryEncodings({ model_type: 'gemma3_text', ...config }, 6, 8).map((encoding) => encoding?.name)
    const expected = [...new Array(5).fill('default'), 'linear']
    const linear = { rope_type: 'linear', factor: 8 }
    expect(names({ rope_parameters: linear })).toEqual(expected)
    const nested = { full_attention: { rope_type: 'default', rope_theta: 5 } }
    expect(names({ rope_parameters: nested, rope_scaling: linear })).toEqual(expected)
  })

  it('goes by the pattern of sliding layers under its old and its new name', () => {
    for (const key of ['sliding_window_pattern', '_sliding_window_pattern']) {
      const config = { model_type: 'gemma3_text', [key]: 2 }
      expect(thetas(layerRotaryEncodings(config, 4, 8)), key).toEqual([10000, 1e6, 10000, 1e6])
      expect(layerTypes(config, 2), key).toEqual(['sliding_attention', 'full_attention'])
    }
  })

  it('ignores types beyond the last layer', () => {
    const layer_types = ['full_attention', 'sliding_attention', 'full_attention']
    expect(thetas(layerRotaryEncodings({ model_type: 'gemma3_text', layer_types }, 2, 8))).toEqual([1e6, 10000])
  })

  it('knows parameters by layer type by the names that layers have', () => {
    const rope_parameters = { main: { rope_theta: 5 }, compress: { rope_theta: 7 } }
    const config = { rope_parameters, layer_types: ['compress', 'main', 'main'] }
    expect(thetas(layerRotaryEncodings(config, 3, 8))).toEqual([7, 5, 5])
  })

  it('reads Gemma 4: head dims differ by layer', () => {
    const config = { model_type: 'gemma4_text', layer_types: ['sliding_attention', 'full_attention'] }
    const [sliding, full] = layerRotaryEncodings(config, 2, [256, 512])
    expect(sliding).toMatchObject({ name: 'default', pairs: 128 })
    expect(full).toMatchObject({ name: 'proportional', pairs: 256 })
    expectFrequencies(full!.at(1).inverseFrequencies, { 1: 0.947463526, 63: 0.0333762469 })
  })

  it('scales the global layers of Olmo 3 only', () => {
    const yarn = { rope_type: 'yarn', factor: 8, original_max_position_embeddings: 8192 }
    const encodings = layerRotaryEncodings({ model_type: 'olmo3', rope_scaling: yarn }, 8, 128)
    expect(encodings.map((encoding) => encoding?.name === 'yarn')).toEqual([0, 0, 0, 1, 0, 0, 0, 1].map(Boolean))
    expect(thetas(encodings)[0]).toBe(500000)
    expect(rotaryEncoding({ model_type: 'olmo3' }, 128, 8).name).toBe('default')
  })

  it('reads truncate of nested parameters where transformers reads it', () => {
    const yarn = { rope_type: 'yarn', factor: 32, rope_theta: 150000, original_max_position_embeddings: 4096 }
    const at12 = (outer: Record<string, unknown>, inner: Record<string, unknown>): number => {
      const config = {
        layer_types: ['full_attention'],
        rope_parameters: { full_attention: { ...yarn, ...inner }, ...outer },
      }
      return layerRotaryEncodings(config, 1, 64)[0]!.at(1).inverseFrequencies[12]!
    }
    expect(at12({}, { truncate: false })).toBeCloseTo(0.00701571391, 10)
    expect(at12({ truncate: false }, {})).toBeCloseTo(0.00679495949, 10)
  })

  it('does not look beside nested parameters for the original length', () => {
    const linear = { rope_type: 'longrope', factor: 2, short_factor: [1], long_factor: [2] }
    const config = { layer_types: ['full_attention'], rope_parameters: { full_attention: linear } }
    const lengths = { max_position_embeddings: 64, original_max_position_embeddings: 32 }
    expect(layerRotaryEncodings({ ...config, ...lengths }, 1, 2)[0]?.fixedUpTo).toBe(64)
  })
})

describe('layers without rotation', () => {
  const rotated = (config: Record<string, unknown>, numLayers: number): string =>
    layerRotaryEncodings(config, numLayers, 8)
      .map((encoding) => (encoding ? 'r' : '-'))
      .join('')

  it('are every fourth of SmolLM3, or as its list or interval says', () => {
    expect(rotated({ model_type: 'smollm3' }, 8)).toBe('rrr-rrr-')
    expect(rotated({ model_type: 'smollm3', no_rope_layer_interval: 3 }, 8)).toBe('rr-rr-rr')
    expect(rotated({ no_rope_layer_interval: 2, no_rope_layers: null }, 5)).toBe('r-r-r')
    expect(rotated({ model_type: 'smollm3', no_rope_layers: [1, 0, 1, 1] }, 4)).toBe('r-rr')
    expect(rotated({ no_rope_layers: [0, 1, 1, 1] }, 2)).toBe('-r')
    expect(rotated({ model_type: 'llama4_text', no_rope_layers: [] }, 8)).toBe('rrr-rrr-')
    expect(thetas(layerRotaryEncodings({ model_type: 'smollm3' }, 1, 8))).toEqual([2e6])
  })

  it('are the global ones of Cohere 2 and EXAONE 4, unless there is no window', () => {
    expect(rotated({ model_type: 'cohere2' }, 8)).toBe('rrr-rrr-')
    expect(rotated({ model_type: 'cohere2', sliding_window_pattern: 2 }, 4)).toBe('r-r-')
    const layer_types = ['full_attention', 'sliding_attention', 'full_attention']
    expect(rotated({ model_type: 'exaone4', layer_types }, 3)).toBe('-r-')
    expect(rotated({ model_type: 'exaone4', layer_types, sliding_window: null }, 3)).toBe('rrr')
    expect(layerRotaryEncodings({ model_type: 'cohere2' }, 1, 8)[0]?.pairing).toBe('interleaved')
  })

  it('are those whose parameters are null', () => {
    const rope_parameters = { full_attention: null, sliding_attention: { rope_theta: 5 } }
    expect(rotated({ rope_parameters, layer_types: ['full_attention', 'sliding_attention'] }, 2)).toBe('-r')
    expect(() => rotaryEncoding({ rope_parameters, layer_types: ['full_attention'] }, 8)).toThrow('layers, got none')
  })

  const nested = { rope_parameters: { full_attention: { rope_theta: 5 } } }
  const refused: Record<string, [Record<string, unknown>, string]> = {
    'a list of the wrong length': [
      { no_rope_layers: [1, 0] },
      'a list of 3 numbers for no_rope_layers, got an array of 2',
    ],
    'a list of layer numbers': [{ no_rope_layers: [3, 7, 11] }, 'expected a list of 0 and 1 for no_rope_layers'],
    'no list': [{ no_rope_layers: 4 }, 'expected a list of 0 and 1 for no_rope_layers, got 4'],
    'interval 0': [{ no_rope_layer_interval: 0 }, 'expected an integer above 0 for no_rope_layer_interval, got 0'],
    'pattern as text': [{ ...nested, sliding_window_pattern: 'LLLG' }, 'for sliding_window_pattern, got "LLLG"'],
    'types that are too few': [
      { ...nested, layer_types: ['full_attention'] },
      'expected a list of 3 strings for layer_types',
    ],
    'types that are missing': [nested, 'expected layer_types, since not all layers are rotated alike'],
    'types that are missing for a family': [{ model_type: 'afmoe' }, 'expected layer_types'],
    'types that are missing for a local theta': [{ rope_local_base_freq: 10000 }, 'expected layer_types'],
    'a type without parameters': [
      { ...nested, layer_types: new Array(3).fill('chunked_attention') },
      'expected an object for chunked_attention, got undefined',
    ],
    'a local theta of 0': [
      { model_type: 'gemma3_text', rope_local_base_freq: 0 },
      'expected a number above 0 for rope_theta, got 0',
    ],
  }
  for (const [name, [config, message]] of Object.entries(refused)) {
    it(`are refused with ${name}`, () => {
      expect(() => layerRotaryEncodings(config, 3, 8)).toThrow(message)
    })
  }

  it('are refused with head dims for other layers', () => {
    expect(() => layerRotaryEncodings({}, 3, [8, 8])).toThrow('expected 3 head dims, got 2')
  })
})

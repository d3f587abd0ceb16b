import { describe, expect, it } from 'vitest'
import { rotaryEncoding } from './index.ts'
import { expectClose, expectFrequencies, frequencies } from './testing/helpers.ts'

describe('dynamic', () => {
  const config = (factor: number, max_position_embeddings: number) => ({
    ...{ rope_theta: 1e4, max_position_embeddings },
    rope_scaling: { rope_type: 'dynamic', factor },
  })

  it('has the published inverse frequencies by length', () => {
    const at = (length: number) => frequencies(config(4, 2048), 128, length)
    expect(at(2048)).toEqual(frequencies({ rope_theta: 1e4 }, 128))
    expectFrequencies(at(4096), { 1: 0.844122036, 32: 0.00441537523, 63: 2.30956397e-5 })
    expectFrequencies(at(8192), { 1: 0.831415965, 32: 0.00271761233, 63: 8.88293834e-6 })
    const other = frequencies(config(2, 4096), 64, 6000)
    expectFrequencies(other, { 1: 0.73416004, 16: 0.00712281852, 31: 6.91055641e-5 })
    const theta = (values: Float64Array): number => values[1]! ** -values.length
    expectClose([theta(at(4096)), theta(at(8192)), theta(other)], [51293.7873, 135401.973, 19710.4365], 6e-9)
  })

  it('changes with every length beyond max_position_embeddings, and holds no state', () => {
    const encoding = rotaryEncoding(config(4, 2048), 128)
    expect(encoding.fixedUpTo).toBe(2048)
    const long = encoding.at(2050)
    expect(encoding.at(0)).toBe(encoding.at(2048))
    expect(encoding.at(2049).inverseFrequencies[63]).not.toBe(encoding.at(2048).inverseFrequencies[63])
    expect(encoding.at(2049).inverseFrequencies[63]).toBeGreaterThan(long.inverseFrequencies[63]!)
    expect(encoding.at(2050)).toEqual(long)
    expect(() => encoding.at(Number.NaN)).toThrow('expected a finite length, got NaN')
  })

  it('does not look at original_max_position_embeddings', () => {
    const withOriginal = { ...config(4, 2048), original_max_position_embeddings: 64 }
    expect(rotaryEncoding(withOriginal, 128).fixedUpTo).toBe(2048)
  })
})

describe('longrope', () => {
  const lists = { short_factor: new Array(8).fill(1), long_factor: new Array(8).fill(2) }
  const longrope = { rope_type: 'longrope', ...lists }
  const model = (parameters: Record<string, unknown>, outer: Record<string, unknown>) =>
    rotaryEncoding({ ...outer, rope_scaling: { ...longrope, ...parameters } }, 16)

  it('has the published inverse frequencies', () => {
    const long_factor = Array.from({ length: 48 }, (_, i) => 1 + 0.1 * i)
    const parameters = { rope_type: 'longrope', long_factor, short_factor: new Array(48).fill(1), factor: 32 }
    const config = { original_max_position_embeddings: 4096, rope_scaling: parameters }
    expectFrequencies(frequencies(config, 96, 4097), { 1: 0.750367441, 24: 0.00294117647, 47: 2.12548712e-5 })
    const double = model({ factor: 8, original_max_position_embeddings: 2048 }, {})
    expectFrequencies(double.at(2049).inverseFrequencies, { 0: 0.5, 1: 0.158113883, 7: 1.58113883e-4 })
    expectClose(
      [double.at(1).attentionFactor, rotaryEncoding(config, 96).at(1).attentionFactor],
      [1.12815215, 1.19023807],
      6e-9,
    )
  })

  it('has the published attention factors', () => {
    const factor = (max_position_embeddings: number, original_max_position_embeddings: number): number =>
      model({}, { max_position_embeddings, original_max_position_embeddings }).at(1).attentionFactor
    expectClose(
      [factor(131072, 4096), factor(131072, 8192), factor(32768, 4096)],
      [1.19023807, 1.14354375, 1.11803399],
      6e-9,
    )
    expect(factor(4096, 4096)).toBe(1)
    expect(factor(2048, 4096)).toBe(1)
    expect(model({ attention_factor: 1.5, original_max_position_embeddings: 16 }, {}).at(1).attentionFactor).toBe(1.5)
  })

  it('takes the long list when the sequence is longer than the original context', () => {
    const encoding = model({ factor: 8, original_max_position_embeddings: 2048 }, {})
    expect(encoding.fixedUpTo).toBe(2048)
    expect(encoding.at(2048).inverseFrequencies[0]).toBe(1)
    expect(encoding.at(2049).inverseFrequencies[0]).toBe(0.5)
    expect(encoding.at(2049)).toBe(encoding.at(1e6))
    expect(encoding.at(2049).attentionFactor).toBe(encoding.at(2048).attentionFactor)
  })

  it('has a factor for each table where the config gives two', () => {
    const encoding = model({ factor: 8, original_max_position_embeddings: 64, short_mscale: 1.1, long_mscale: 1.3 }, {})
    expect([encoding.at(64).attentionFactor, encoding.at(65).attentionFactor]).toEqual([1.1, 1.3])
  })

  it('lets the original length beside the dictionary win', () => {
    const encoding = model(
      { original_max_position_embeddings: 64 },
      { original_max_position_embeddings: 32, max_position_embeddings: 128 },
    )
    expect(encoding.fixedUpTo).toBe(32)
    expect(model({ factor: 2 }, { max_position_embeddings: 128 }).fixedUpTo).toBe(128)
  })
})

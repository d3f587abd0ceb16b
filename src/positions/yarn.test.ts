import { describe, expect, it } from 'vitest'
import { rotaryEncoding } from './index.ts'
import { expectClose, expectFrequencies, frequencies } from './testing/helpers.ts'
import { yarnRange } from './yarn.ts'

const scaled = (rope_theta: number, rope_scaling: Record<string, unknown>) => ({ rope_theta, rope_scaling })

describe('yarn', () => {
  const qwen = { rope_type: 'yarn', factor: 4, original_max_position_embeddings: 32768 }
  const gpt = { rope_type: 'yarn', factor: 32, original_max_position_embeddings: 4096, truncate: false }
  const deepseek = { type: 'yarn', factor: 40, original_max_position_embeddings: 4096, mscale: 1, mscale_all_dim: 1 }
  const factorOf = (parameters: Record<string, unknown>) =>
    rotaryEncoding(scaled(1e4, parameters), 64).at(1).attentionFactor

  it('has the published inverse frequencies', () => {
    expectFrequencies(frequencies(scaled(1e6, qwen), 128), {
      ...{ 16: 0.0316227766, 24: 0.00537532149, 28: 0.00184827656, 32: 6.02941176e-4, 36: 1.79841156e-4 },
      ...{ 40: 4.44569853e-5, 48: 7.90569415e-6, 63: 3.1023444e-7 },
    })
    const others = { 1: 0.689044306, 8: 0.0508132748, 20: 1.81883367e-5, 24: 4.09997848e-6, 31: 3.02351143e-7 }
    const exact = frequencies(scaled(150000, gpt), 64)
    expectFrequencies(exact, { ...others, 12: 0.00679495949, 16: 4.56483919e-4 })
    const truncated = frequencies(scaled(150000, { ...gpt, truncate: true }), 64)
    expectFrequencies(truncated, { ...others, 12: 0.00701571391, 16: 5.80947502e-4 })
    expectFrequencies(frequencies(scaled(1e4, deepseek), 64), {
      ...{ 1: 0.749894209, 8: 0.1, 12: 0.0268793601, 16: 0.0055, 20: 7.90569415e-4, 24: 2.5e-5, 31: 3.33380358e-6 },
    })
  })

  it('has the published ranges', () => {
    const range = (theta: number, width: number, parameters: Record<string, unknown>): number[] => {
      const originalMaxPositions = parameters.original_max_position_embeddings as number
      const { low, high } = yarnRange({
        theta,
        headDim: width,
        width,
        partialFactor: 1,
        originalMaxPositions,
        parameters,
      })
      return [low, high]
    }
    expect(range(1e6, 128, qwen)).toEqual([23, 40])
    expectClose(range(1e6, 128, { ...qwen, truncate: false }), [23.595948, 39.650881], 3e-8)
    expectClose(range(150000, 64, gpt), [8.092779, 17.398025], 6e-8)
    expect(range(150000, 64, { ...gpt, truncate: true })).toEqual([8, 18])
    expect(range(1e4, 64, deepseek)).toEqual([10, 23])
    expectClose(range(1e4, 64, { ...deepseek, truncate: false }), [10.472241, 22.513441], 5e-8)
    expect(range(1e4, 64, { ...deepseek, beta_fast: 0, beta_slow: 0 })).toEqual([10, 23])
    // Bounds: 0 below, the rotary width less one above.
    expect(range(1e4, 4, { ...deepseek, original_max_position_embeddings: 1e9 })).toEqual([3, 3])
    expect(range(1e4, 64, { ...deepseek, original_max_position_embeddings: 64 })[0]).toBe(0)
  })

  it('has the published attention factors', () => {
    const { mscale, mscale_all_dim, ...plain } = deepseek
    const published = [1.13862944, 1.34657359, 1, 1.15572199]
    const found = [factorOf(qwen), factorOf(gpt), factorOf(deepseek), factorOf({ ...deepseek, mscale_all_dim: 0.5 })]
    expectClose(found, published, 6e-9)
    expect(factorOf({ ...plain, mscale: 1 })).toBe(0.1 * Math.log(40) + 1)
    expect(factorOf({ ...plain, mscale, mscale_all_dim: 0 })).toBe(0.1 * Math.log(40) + 1)
    expect([factorOf({ ...qwen, attention_factor: 1 }), factorOf({ ...qwen, attention_factor: 0 })]).toEqual([1, 0])
    expect(factorOf({ ...qwen, attention_factor: null })).toBe(factorOf(qwen))
    expect(factorOf({ ...qwen, factor: 0.5 })).toBe(1)
  })

  it('takes the ratio of lengths where factor is null', () => {
    const ratio = { ...scaled(1e6, { ...qwen, factor: null }), max_position_embeddings: 131072 }
    expect(frequencies(ratio, 128)).toEqual(frequencies(scaled(1e6, qwen), 128))
  })

  it('does not divide by zero where the range is empty', () => {
    // Both ends at pair 0: it stays, the others are divided.
    const parameters = { ...qwen, original_max_position_embeddings: 6 }
    const plain = [...frequencies({ rope_theta: 1e6 }, 128)]
    const expected = plain.map((frequency, i) => (i === 0 ? frequency : frequency / 4))
    expect([...frequencies(scaled(1e6, parameters), 128)]).toEqual(expected)
  })

  it('is the same at every length', () => {
    const encoding = rotaryEncoding(scaled(1e6, qwen), 128)
    expect(encoding.fixedUpTo).toBe(Number.POSITIVE_INFINITY)
    expect(encoding.at(1e9)).toBe(encoding.at(1))
  })
})

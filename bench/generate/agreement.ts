/** Whether two programs computed the same model: before anything is timed. */
import { KvasirError } from '../../src/tensor/error.ts'
import type { Agreement, CandidateName, WeightType } from './contract.ts'

/**
 * Of the range of the logits. Quantized weights go with activations rounded to 8 bits, where a last bit that differs
 * becomes a step of that grid.
 */
export const tolerances = { f32: 1e-4, int8: 2e-2, int4: 2e-2 } as const satisfies Record<WeightType, number>

export interface Choices {
  /** f32 `[steps, vocab]` in one list. */
  readonly logits: Float32Array
  /** `[steps]`: the token of the largest logit of each. */
  readonly tokens: readonly number[]
}

/**
 * Compares the logits of all steps, whole. Another token is forgiven only where the expected logits of the two are as
 * near as the tolerance of both: there the largest is a matter of rounding.
 * @throws KvasirError `internal`
 */
export function checkAgreement(
  candidate: CandidateName,
  got: Choices,
  expected: Choices,
  tolerance: number,
): Agreement {
  const steps = expected.tokens.length
  const vocab = expected.logits.length / steps
  const refuse = (what: string): never => {
    throw new KvasirError('internal', 'bench', `${candidate} disagrees with onnxruntime: ${what}`)
  }
  if (got.logits.length !== expected.logits.length || got.tokens.length !== steps) {
    refuse(
      `expected ${expected.logits.length} logits of ${steps} steps, got ${got.logits.length} of ${got.tokens.length}`,
    )
  }
  let difference = 0
  let equalTokens = 0
  for (let step = 0; step < steps; step++) {
    const row = expected.logits.subarray(step * vocab, (step + 1) * vocab)
    const { range, largest } = compareRow(row, got.logits.subarray(step * vocab, (step + 1) * vocab))
    // NaN is no agreement.
    if (!(largest <= tolerance * range)) {
      refuse(`a logit of step ${step} is ${largest / range} of their range away, expected at most ${tolerance}`)
    }
    difference = Math.max(difference, largest / range)
    const [own, other] = [expected.tokens[step]!, got.tokens[step]!]
    if (own === other) equalTokens++
    else if (!(Math.abs(row[own]! - row[other]!) <= 2 * tolerance * range)) {
      refuse(`expected token ${own} at step ${step}, got ${other}`)
    }
  }
  return { candidate, tokens: steps, equalTokens, difference, tolerance }
}

function compareRow(expected: Float32Array, got: Float32Array): { range: number; largest: number } {
  let [low, high, largest] = [Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY, 0]
  for (let i = 0; i < expected.length; i++) {
    low = Math.min(low, expected[i]!)
    high = Math.max(high, expected[i]!)
    const difference = Math.abs(expected[i]! - got[i]!)
    largest = Math.max(largest, difference)
  }
  return { range: high - low, largest }
}

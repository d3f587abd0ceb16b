/** Whether two programs computed the same model: before anything is timed. */
import { KvasirError } from '../../src/tensor/error.ts'
import type { Agreement, CandidateName } from './contract.ts'

/** With weights in f32: largest difference from onnxruntime's logits, over their range. */
export const f32Tolerance = 1e-4

/**
 * With quantized weights, whose products round activations to 8 bits too: how far from a run of the same weights in f32
 * a candidate may be, in units of what onnxruntime itself is. (llama.cpp has scales, keys and values in f16 besides.)
 */
export const mostOfDeviation = { kvasir: 2, 'kvasir-window': 2, 'node-llama-cpp': 2 } as const

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
    throw new KvasirError('internal', 'bench', `${candidate} computes something else: ${what}`)
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

/** Largest difference of a logit over the range of its row. */
export function deviation(got: Choices, expected: Choices): number {
  const vocab = expected.logits.length / expected.tokens.length
  let most = 0
  for (let at = 0; at < expected.logits.length; at += vocab) {
    const row = compareRow(expected.logits.subarray(at, at + vocab), got.logits.subarray(at, at + vocab))
    most = Math.max(most, row.largest / row.range)
  }
  return most
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

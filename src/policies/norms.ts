/**
 * Static scores of a token's own key and value.
 *
 * value norm: ||v||_2, for what attention adds is a sum of values. The first tokens, which attention leans on, have
 * small values: give them `sinks`.
 * key norm: -||k||_2 (Devoto et al. 2024, "A Simple and Effective L2 Norm-Based Strategy for KV Cache Compression"):
 * keys of small norm get the most attention. Weak on models that normalise keys.
 */
import type { ScoreTokens } from '../cache/contract.ts'
import { normOf } from './vectors.ts'

export const valueNorm: ScoreTokens = ({ value, valueDim }, scores) => {
  for (let n = 0; n < scores.length; n++) scores[n] = normOf(value, n, valueDim)
}

export const keyNorm: ScoreTokens = ({ key, headDim }, scores) => {
  for (let n = 0; n < scores.length; n++) scores[n] = -normOf(key, n, headDim)
}

/** Log probabilities of drawn tokens: of the model itself, before bias, penalties and temperature. */
import type { TokenLogprob } from './contract.ts'
import { largest, logSumExp } from './sampling.ts'

/** The log probability of `token` after `logits` `[V]`, its rank, and the `count` likeliest tokens. */
export function tokenLogprob(logits: Float32Array, token: number, count: number): TokenLogprob {
  const total = logSumExp(logits)
  const logprob = (i: number): number => logits[i]! - total
  let rank = 1
  for (const logit of logits) if (logit > logits[token]!) rank++
  const top = largest(logits, count).map((i) => ({ token: i, logprob: logprob(i) }))
  return { token, logprob: logprob(token), rank, top }
}

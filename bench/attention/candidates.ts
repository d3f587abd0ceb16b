/** All that can take part. */
import { checkChoice } from '../../src/tensor/check.ts'
import type { Candidate } from './candidate.ts'
import { type CandidateName, candidateNames } from './contract.ts'
import { native, nativeAvx2, wasm } from './ours.ts'
import { peer } from './peers.ts'

export const candidates = {
  native,
  'native-avx2': nativeAvx2,
  wasm,
  'ort-node-gqa': peer('node', 'GroupQueryAttention'),
  'ort-node-mha': peer('node', 'MultiHeadAttention'),
  'ort-node-attention': peer('node', 'Attention'),
  'ort-web-gqa': peer('web', 'GroupQueryAttention'),
  'ort-web-mha': peer('web', 'MultiHeadAttention'),
  'ort-web-attention': peer('web', 'Attention'),
} as const satisfies Record<CandidateName, Candidate>

/** Where the processor has better than AVX2, that is for those who ask for it. */
export const defaultCandidates = candidateNames.filter((name) => name !== 'native-avx2')

/** @throws KvasirError `invalid-argument` for a name that is not in the table; the message names the nearest */
export function findCandidate(name: string): Candidate {
  checkChoice('bench', 'candidate', name, candidateNames)
  return candidates[name]
}

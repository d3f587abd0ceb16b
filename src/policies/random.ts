/**
 * Chance, as the baseline that others must beat: every token of every head draws a number from seed, layer, head and
 * position, so the same tokens stay however they came in chunks.
 */
import type { ScoreTokens } from '../cache/contract.ts'

export function randomScores(seed: number): ScoreTokens {
  return ({ layer, numKvHeads, numTokens, firstPosition }, scores) => {
    for (let t = 0; t < numTokens; t++) {
      const position = firstPosition + t
      for (let k = 0; k < numKvHeads; k++) {
        const words = [layer, k, position % 2 ** 32, Math.floor(position / 2 ** 32)]
        scores[t * numKvHeads + k] = words.reduce(mix, mix(0x9e3779b9, seed)) / 2 ** 32
      }
    }
  }
}

/** One round of the finaliser of MurmurHash3 over a state and a word. */
function mix(state: number, word: number): number {
  let z = (state ^ (word >>> 0)) >>> 0
  z = Math.imul(z ^ (z >>> 16), 0x85ebca6b)
  z = Math.imul(z ^ (z >>> 13), 0xc2b2ae35)
  return ((z ^ (z >>> 16)) + 0x9e3779b9) >>> 0
}

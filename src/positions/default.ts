/** Plain RoPE: pair i turns by theta^(-i/R) radians a position. */
import type { RotaryEntry } from './contract.ts'

export const plainRope: RotaryEntry = ({ theta, pairs }) => ({
  name: 'default',
  inverseFrequencies: Float64Array.from({ length: pairs }, (_, i) => theta ** (-i / pairs)),
  attentionFactor: 1,
})

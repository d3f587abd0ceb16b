/** Cosines and sines of rotary positions. */
import type { RotaryEncoding } from './contract.ts'

/**
 * Writes cos and sin of position * inverse frequency, in f64 up to the last rounding to f32: at position 2^31 an angle
 * in f32 would be wrong by 128 radians, in f64 it is right to 5e-7.
 * @param cos out `[T, R]`
 * @param sin out `[T, R]`
 */
export function fillRotaryTable(
  { inverseFrequencies, attentionFactor }: RotaryEncoding,
  positions: ArrayLike<number>,
  cos: Float32Array,
  sin: Float32Array,
): void {
  const pairs = inverseFrequencies.length
  for (let t = 0; t < positions.length; t++) {
    for (let i = 0; i < pairs; i++) {
      const angle = (positions[t] as number) * (inverseFrequencies[i] as number)
      cos[t * pairs + i] = Math.cos(angle) * attentionFactor
      sin[t * pairs + i] = Math.sin(angle) * attentionFactor
    }
  }
}

/**
 * PyramidKV (Cai et al. 2024): layers near the input keep more, those near the output less, in a straight line with the
 * same sum. Of the mean budget per layer a beta-th goes to the last layer.
 */

const beta = 20

export interface Pyramid {
  /** Rows that a layer keeps on average. */
  readonly budget: number
  readonly numLayers: number
  /** Rows that every layer must keep; with less for the last, all keep the same. */
  readonly least: number
  /** Tokens of the prompt, where they are known: no layer keeps more. */
  readonly length?: number
}

/** Rows for each layer, first to last. They add up to numLayers * budget where that is an integer. */
export function pyramidBudgets({ budget, numLayers, least, length = Number.POSITIVE_INFINITY }: Pyramid): number[] {
  let low = budget / beta
  let high = 2 * budget - low
  if (high >= length - least) {
    high = length - least
    low = 2 * budget - high
  }
  const isPyramid = length >= high && high >= low && low >= least && numLayers > 1
  return Array.from({ length: numLayers }, (_, layer) => {
    return roundHalfEven(isPyramid ? high - (layer * (high - low)) / (numLayers - 1) : budget)
  })
}

/** Of two that add up to an integer, one then goes up where the other goes down. */
function roundHalfEven(value: number): number {
  const floor = Math.floor(value)
  const rest = value - floor
  if (rest !== 0.5) return Math.round(value)
  return floor % 2 === 0 ? floor : floor + 1
}

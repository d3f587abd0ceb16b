/** What a position encoding gives: from config.json to tables of cosines and sines. Kernels see tables only. */

/** What positions are multiplied with, for sequences of one length. */
export interface RotaryTable {
  /** `[R]` radians a position, f64; 0: the pair is not turned */
  readonly inverseFrequencies: Float64Array
  /** cos and sin are multiplied by this, so scores grow by its square. */
  readonly attentionFactor: number
}

/** The tables of one encoding. It holds no state: what depends on a sequence's length gets the length. */
export interface RotaryTables {
  /** R, the same at every length. */
  readonly pairs: number
  /** `at` gives one and the same table for all lengths up to this; Infinity where the length never matters. */
  readonly fixedUpTo: number
  /**
   * The table for tokens that are rotated when their sequence, themselves included, has `length` tokens. Tokens that
   * were rotated before keep what they have: nothing here goes back to them, see docs/positions.md.
   */
  at(length: number): RotaryTable
}

/** Which components of a head form pair i: `half` (i, i + R), `interleaved` (2i, 2i + 1). */
export type RotaryPairing = 'half' | 'interleaved'

/** One rotary encoding, ready. The first 2 R components of each head are rotated, the others pass. */
export interface RotaryEncoding extends RotaryTables {
  /** Its `rope_type`, as in `rotaryEncodings`. */
  readonly name: string
  readonly pairing: RotaryPairing
}

/** The numbers of config.json that positions of one kind of layer depend on, from their old and new places. */
export interface RotaryConfig {
  readonly theta: number
  /** D */
  readonly headDim: number
  /** The share of the head that is rotated, in (0, 1]. */
  readonly partialFactor: number
  /** Components that are rotated, as transformers truncates them; not checked, since `proportional` has another rule. */
  readonly width: number
  /** max_position_embeddings */
  readonly maxPositions?: number
  /** original_max_position_embeddings, where config.json has it. */
  readonly originalMaxPositions?: number
  /** The dictionary of the type's own parameters (`factor`, ...); null counts as absent. */
  readonly parameters: Readonly<Record<string, unknown>>
}

/**
 * One `rope_type`.
 * @throws KvasirError `invalid-file` for parameters that are missing or make no sense
 */
export type RotaryEntry = (config: RotaryConfig) => RotaryTables

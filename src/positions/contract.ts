/** What a position encoding gives: from config.json to a table. */

/** The keys of config.json that positions depend on, collected from their old and new places. */
export interface RotaryConfig {
  readonly theta: number
  /** R pairs: the first 2 R components of each head are rotated. */
  readonly pairs: number
  /** The dictionary of the type's own parameters (`factor`, ...). */
  readonly parameters: Readonly<Record<string, unknown>>
}

/** One rotary encoding, ready. */
export interface RotaryEncoding {
  readonly name: string
  /** `[R]` radians a position, f64 */
  readonly inverseFrequencies: Float64Array
  /** cos and sin are multiplied by this. */
  readonly attentionFactor: number
}

/** One `rope_type`. */
export type RotaryEntry = (config: RotaryConfig) => RotaryEncoding

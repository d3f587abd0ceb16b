/** Position encodings by `rope_type`. One more is one more file and one line here. */
import { KvasirError } from '../tensor/error.ts'
import { readRotaryConfig } from './config.ts'
import type { RotaryEncoding, RotaryEntry } from './contract.ts'
import { plainRope } from './default.ts'

export type * from './contract.ts'
export { fillRotaryTable } from './table.ts'

export const rotaryEncodings = { default: plainRope } as const satisfies Record<string, RotaryEntry>

/**
 * The rotary encoding of a model.
 * @param config config.json as parsed
 * @throws KvasirError `unsupported` naming the rope_type, `invalid-file` for values that make no sense
 */
export function rotaryEncoding(config: Readonly<Record<string, unknown>>, headDim: number): RotaryEncoding {
  const { type, ...rotary } = readRotaryConfig(config, headDim)
  if (Object.hasOwn(rotaryEncodings, type)) return rotaryEncodings[type as keyof typeof rotaryEncodings](rotary)
  const known = Object.keys(rotaryEncodings).join(', ')
  throw new KvasirError('unsupported', 'positions', `expected a rope_type of: ${known}, got "${type}"`)
}

/** What the evaluations have in common. */
import type { Command } from 'commander'
import type { ModelFlags } from '../model.ts'

export const defaultWindow = 256
export const defaultSeed = 1000

export interface EvalFlags extends ModelFlags {
  readonly seed: number
  readonly json?: boolean
}

/** A cache that keeps everything has no window unless one was asked for: the default is for the others. */
export function withoutIdleWindow<T extends EvalFlags>(flags: T, command: Command): T {
  const isDefault = command.getOptionValueSource('window') === 'default'
  return flags.policy === 'full' && isDefault ? { ...flags, window: undefined } : flags
}

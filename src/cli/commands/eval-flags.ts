/** What the evaluations have in common. */
import type { Command } from 'commander'
import type { ModelFlags } from '../model.ts'
import { loadOptions } from '../options.ts'

export const defaultWindow = 256
export const defaultSeed = 1000

export interface EvalFlags extends ModelFlags {
  readonly seed: number
  readonly json?: boolean
}

/** Options of a model that say nothing of what its cache keeps. */
const ofModel = ['backend', 'threads', 'quantize', 'dtype', 'revision', 'chunkSize']

export function addModelOptions(command: Command): Command {
  for (const option of loadOptions()) if (ofModel.includes(option.attributeName())) command.addOption(option)
  return command
}

/** A cache that keeps everything has no window unless one was asked for: the default is for the others. */
export function withoutIdleWindow<T extends EvalFlags>(flags: T, command: Command): T {
  const isDefault = command.getOptionValueSource('window') === 'default'
  return flags.policy === 'full' && isDefault ? { ...flags, window: undefined } : flags
}

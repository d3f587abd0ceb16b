/** What the evaluations have in common. */
import type { Command } from 'commander'
import type { ModelFlags } from '../model.ts'
import { addOptions, loadOptions, policyOption, windowOption } from '../options.ts'

export const defaultWindow = 256
export const defaultSeed = 1000

export interface EvalFlags extends ModelFlags {
  readonly seed: number
  readonly json?: boolean
}

/** Options of a model that say nothing of what its cache keeps. */
const ofModel = ['backend', 'threads', 'quantize', 'dtype', 'revision', 'chunkSize']

export function addModelOptions(command: Command): Command {
  return addOptions(
    command,
    loadOptions().filter((option) => ofModel.includes(option.attributeName())),
  )
}

/** All options of a model, with a linear cache where none is chosen. */
export function addCacheOptions(command: Command): Command {
  command.addOption(policyOption().default('linear')).addOption(windowOption(defaultWindow))
  return addOptions(command, loadOptions())
}

/** A cache that keeps everything has no window unless one was asked for, and a preset has its own. */
export function withoutIdleWindow<T extends EvalFlags>(flags: T, command: Command): T {
  const isDefault = command.getOptionValueSource('window') === 'default'
  return isDefault && (flags.policy === 'full' || flags.preset) ? { ...flags, window: undefined } : flags
}

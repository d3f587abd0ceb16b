/** Options that several commands share, and checks of numbers that say what was expected. */
import { type Command, InvalidArgumentError, Option } from 'commander'
import type { ImportanceSource, PolicyChoice } from '../cache/contract.ts'
import { backendNames, storageTypes } from '../kernels/index.ts'
import { onnxDtypes } from '../onnx/index.ts'
import { importanceNames, type PresetName, policyNames, presets, readPolicy } from '../policies/index.ts'
import type { LoadOptions } from '../runtime/contract.ts'
import { didYouMean } from '../tensor/check.ts'
import { isKvasirError, reasonOf } from '../tensor/error.ts'
import { byteCount } from './plan-options.ts'
import { type PrefixFlags, prefixOptions, toPrefixCache, toRecallTiers } from './prefix-options.ts'

type Parser = (text: string) => number

/** An integer in [min, max]. */
export function integer(min: number, max = Number.MAX_SAFE_INTEGER): Parser {
  const range = max === Number.MAX_SAFE_INTEGER ? `an integer of at least ${min}` : `an integer from ${min} to ${max}`
  return (text) => {
    const value = Number(text)
    if (/^[+-]?\d+$/.test(text.trim()) && value >= min && value <= max) return value
    throw new InvalidArgumentError(`Expected ${range}.`)
  }
}

/** Integers of at least `min`, one or more after one option, with spaces or commas between them. */
export function integers(min: number): (text: string, before: number[] | undefined) => number[] {
  const parse = integer(min)
  return (text, before = []) => [...before, ...text.split(',').map(parse)]
}

/** Words of any kind, one or more after one option, with spaces or commas between them. */
export function words(text: string, before: string[] = []): string[] {
  return [...before, ...text.split(',').map((word) => word.trim())]
}

/** Numbers above 0, below 1, one or more after one option, with spaces or commas between them. */
export function fractions(text: string, before: number[] = []): number[] {
  const found = text.split(',').map(Number)
  if (found.every((value) => value > 0 && value < 1)) return [...before, ...found]
  throw new InvalidArgumentError('Expected numbers above 0, below 1.')
}

/** Names from a list, one or more after one option, with spaces or commas between them. */
export function names<T extends string>(choices: readonly T[]): (text: string, before: T[] | undefined) => T[] {
  return (text, before = []) => {
    const found = text.split(',').map((name) => {
      const choice = choices.find((known) => known === name)
      if (choice !== undefined) return choice
      throw new InvalidArgumentError(`Allowed choices are ${choices.join(', ')}${didYouMean(name, choices)}.`)
    })
    return [...before, ...found]
  }
}

/** A name, or the path of a scorer's file: whatever looks like one. */
function importance(text: string): ImportanceSource {
  const name = importanceNames.find((known) => known === text)
  if (name !== undefined) return name
  if (/[/\\.]/.test(text)) return { scorer: text }
  const choices = `${importanceNames.join(', ')} and files of scorers`
  throw new InvalidArgumentError(`Allowed choices are ${choices}${didYouMean(text, importanceNames)}.`)
}

/** A number in [min, max], or (min, max] when `isOpen`. */
export function number(min: number, max = Infinity, isOpen = false): Parser {
  const lower = isOpen ? `above ${min}` : max === Infinity ? `of at least ${min}` : `from ${min}`
  const range = max === Infinity ? lower : `${lower} to ${max}`
  return (text) => {
    const value = Number(text)
    const isInside = (isOpen ? value > min : value >= min) && value <= max
    if (text.trim() !== '' && Number.isFinite(value) && isInside) return value
    throw new InvalidArgumentError(`Expected a number ${range}.`)
  }
}

/** A name or wrappers around one. */
function policy(text: string): LoadOptions['policy'] {
  try {
    readPolicy(text)
  } catch (error) {
    if (!isKvasirError(error)) throw error
    const reason = reasonOf(error)
    throw new InvalidArgumentError(`${reason.charAt(0).toUpperCase()}${reason.slice(1)}.`)
  }
  return text as LoadOptions['policy']
}

/** Policies, one or more after one option, with spaces or commas between them. */
export function policies(text: string, before: PolicyChoice[] = []): PolicyChoice[] {
  return [...before, ...text.split(',').map((name) => policy(name) as PolicyChoice)]
}

const maxSeed = 2 ** 32 - 1

/** What options stand under in --help. */
export const helpGroups = { text: 'The text:', cache: 'The cache:', model: 'How the model runs:' }
const ofCache = (option: Option): Option => option.helpGroup(helpGroups.cache)
const ofModel = (option: Option): Option => option.helpGroup(helpGroups.model)

export const jsonOption = (): Option => new Option('--json', 'print one JSON object and nothing else')
export const seedOption = (text: string, value?: number): Option =>
  new Option('--seed <number>', text).argParser(integer(0, maxSeed)).default(value)
export const modelOption = (): Option =>
  new Option('--model <path>', 'folder of a model, or its id at the hub: org/name (default: the bundled kvasir-tiny)')
export const dtypeOption = (): Option =>
  ofModel(choice('--dtype <name>', 'which of the ONNX files', Object.keys(onnxDtypes)))
export const revisionOption = (): Option =>
  ofModel(new Option('--revision <name>', 'branch, tag or commit of a model of the hub (default: main)'))
export const windowOption = (value?: number): Option =>
  ofCache(new Option('--window <tokens>', 'tokens kept for each KV head').argParser(integer(1)).default(value))
export const policyOption = (): Option =>
  ofCache(
    new Option(
      '--policy <name>',
      `which tokens stay: ${policyNames.join(', ')}; adakv(...), pyramidkv(...) of one`,
    ).argParser(policy),
  )

export const backendOption = (): Option =>
  ofModel(choice('--backend <name>', 'kernels for attention (default: the best available)', backendNames))
export const threadsOption = (): Option =>
  ofModel(new Option('--threads <number>', 'threads that compute (default: all cores)').argParser(integer(1, 256)))

/** One name of a list; not commander's own check, which does not name the nearest. */
function choice(flags: string, text: string, choices: readonly string[]): Option {
  return new Option(flags, text).choices(choices).argParser((name) => {
    if (choices.includes(name)) return name
    throw new InvalidArgumentError(`Allowed choices are ${choices.join(', ')}${didYouMean(name, choices)}.`)
  })
}

export function addOptions(command: Command, options: readonly Option[]): Command {
  for (const option of options) command.addOption(option)
  return command
}

/** How a model is loaded: storage of the cache, kernels, weights. */
export const loadOptions = (): Option[] => [...cacheOptions().map(ofCache), ...runOptions()]

const cacheOptions = (): Option[] => [
  new Option('--sinks <tokens>', 'first tokens that always stay').argParser(integer(0)),
  new Option('--recent <tokens>', 'last tokens that always stay').argParser(integer(0)),
  choice('--preset <name>', 'window, sinks, recent and kv-dtype by use', Object.keys(presets)),
  new Option('--kv-budget <bytes>', 'bytes that the cache may take, as in 256MiB').argParser(byteCount),
  choice('--kv-dtype <type>', 'storage of keys and values', storageTypes),
  choice('--kv-dtype-k <type>', 'storage of keys alone', storageTypes),
  choice('--kv-dtype-v <type>', 'storage of values alone', storageTypes),
  new Option(
    '--kv-residual <tokens>',
    'newest tokens that are left in f16 (default: with fp8, int4 128, up to W / 4)',
  ).argParser(integer(0)),
  new Option('--recall <pages>', 'pages of 16 evicted tokens that come back for each token').argParser(
    integer(1, 4096),
  ),
  new Option('--recall-bytes <bytes>', 'bytes that evicted tokens may take (default: 256MiB)').argParser(byteCount),
  new Option('--least-window <tokens>', 'what the window of a head shrinks to by its attention').argParser(integer(1)),
  new Option('--keep-mass <share>', 'of attention that must stay when it shrinks (default: 0.95)').argParser(
    number(0, 1, true),
  ),
  choice('--kv-storage <how>', 'rows side by side, or in pages', ['contiguous', 'paged']),
  choice('--positions <which>', 'of kept tokens: where they stood, or their rank', ['original', 'rank']),
  new Option(
    '--importance <what>',
    `what linear ranks by: ${importanceNames.join(', ')}, or the file of a scorer`,
  ).argParser(importance),
  ...prefixOptions(),
]

const runOptions = (): Option[] => [
  backendOption(),
  threadsOption(),
  ofModel(choice('--quantize <type>', 'weights of this width, built once and kept', ['int8', 'int4'])),
  dtypeOption(),
  revisionOption(),
  ofModel(new Option('--chunk-size <tokens>', 'prompt tokens run through the model at once').argParser(integer(1))),
]

/** Values of `loadOptions`, `windowOption` and `policyOption` as commander gives them. */
export interface LoadFlags extends Omit<LoadOptions, 'policy' | 'prefixCache' | 'recall'>, PrefixFlags {
  readonly policy?: LoadOptions['policy']
  readonly preset?: PresetName
  readonly kvStorage?: LoadOptions['storage']
  readonly kvResidual?: number
}

/** Only what was given, so that the library's own defaults hold for the rest. */
export function toLoadOptions(flags: LoadFlags): LoadOptions {
  const { policy, window, sinks, recent, kvBudget, kvStorage, positions, importance, preset } = flags
  const { recall, recallBytes, leastWindow, keepMass } = flags
  const { kvDtype, kvDtypeK, kvDtypeV, kvResidual: residual } = flags
  const { backend, threads, quantize, dtype, revision, chunkSize } = flags
  const sizes = { window, sinks, recent, kvBudget, leastWindow, keepMass, recall, recallBytes }
  const cache = { policy, ...sizes, storage: kvStorage, positions, importance }
  const types = { kvDtype, kvDtypeK, kvDtypeV, residual }
  const tiers = { prefixCache: toPrefixCache(flags), recallTiers: toRecallTiers(flags) }
  const rest = { backend, threads, quantize, dtype, revision, chunkSize, ...tiers }
  const all = { ...cache, ...types, ...rest }
  const given = Object.fromEntries(Object.entries(all).filter(([, value]) => value !== undefined))
  return { ...(preset && presets[preset]), ...given }
}

/** Example calls under the text of --help. */
export function examples(...lines: readonly string[]): string {
  return `\nExamples:\n${lines.map((line) => `  $ ${line}`).join('\n')}`
}

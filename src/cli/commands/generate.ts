/** `kvasir generate`: continues a text. */
import { Command, Option } from 'commander'
import type { KvCache } from '../../cache/contract.ts'
import type { CausalLM, GenerateOptions, GenerateResult, Prompt } from '../../runtime/contract.ts'
import { invalidArgument, KvasirError } from '../../tensor/error.ts'
import type { CliContext } from '../context.ts'
import { formatBytes, formatCount, formatPlural, formatSeconds, ratePerSecond } from '../format.ts'
import { type ModelFlags, modelName, withModel } from '../model.ts'
import {
  addOptions,
  examples,
  integer,
  jsonOption,
  loadOptions,
  modelOption,
  number,
  policyOption,
  windowOption,
} from '../options.ts'
import { checkWritable } from '../output-file.ts'
import { prefixLine } from '../prefix-report.ts'
import { readingTokens } from '../progress.ts'
import { readPrompt } from '../prompt.ts'
import { type SamplingFlags, samplingOptions, toSampling } from '../sampling-options.ts'
import { createTerminal, type Terminal } from '../terminal.ts'

interface GenerateFlags extends ModelFlags, SamplingFlags {
  readonly text?: string
  readonly prompt?: string
  readonly promptFile?: string
  readonly chat?: boolean
  readonly system?: string
  readonly n?: number
  readonly logprobs?: number
  readonly numBeams?: number
  readonly lengthPenalty?: number
  readonly earlyStopping?: 'true' | 'false' | 'never'
  readonly stream?: boolean
  readonly loadCache?: string
  readonly saveCache?: string
  readonly json?: boolean
}

/** Prompts beyond this many tokens get a progress bar. */
const longPrompt = 4096

export function generateCommand(context: CliContext): Command {
  const command = new Command('generate')
    .description('Continue a text. It comes as an argument, from --prompt-file or from standard input.')
    .argument('[prompt]', 'the text to continue')
    .addOption(modelOption())
    .addOption(new Option('--prompt <text>', 'the text to continue, by name').conflicts('promptFile'))
    .addOption(new Option('--prompt-file <path>', 'a UTF-8 file with the text; one line break at its end is left out'))
    .addOption(new Option('--chat', "the prompt is a message: the model's chat template is used"))
    .addOption(new Option('--system <text>', 'with --chat: what the model is told first'))
    .addOption(new Option('--n <number>', 'texts from the same prompt').argParser(integer(1)))
    .addOption(new Option('--logprobs <number>', 'log probabilities of so many tokens').argParser(integer(0, 100)))
    .addOption(new Option('--num-beams <number>', 'beams that are followed').argParser(integer(1)))
    .addOption(new Option('--length-penalty <number>', 'of beams: above 0 favours long texts').argParser(number(-100)))
    .addOption(new Option('--early-stopping <when>', 'of beams').choices(['true', 'false', 'never']))
  addOptions(command, [...samplingOptions(), policyOption(), windowOption(), ...loadOptions()])
  return command
    .addOption(new Option('--load-cache <file>', 'go on after what a saved cache has read'))
    .addOption(new Option('--save-cache <file>', 'write the cache to a file afterwards'))
    .addOption(new Option('--stream', 'print the text as it comes').conflicts('json'))
    .addOption(jsonOption())
    .addHelpText(
      'after',
      examples(
        'kvasir generate "Mara put the brass key in the blue drawer." --max-tokens 40',
        'kvasir generate --prompt-file story.txt --policy linear --window 256 --stream',
        'cat story.txt | kvasir generate --temperature 0.8 --seed 7 --json',
      ),
    )
    .action((text: string | undefined, flags: GenerateFlags) => generate(context, { ...flags, text }))
}

async function generate(context: CliContext, flags: GenerateFlags): Promise<void> {
  const terminal = createTerminal(context, flags.json === true)
  const search = toSearch(flags)
  const prompt = toPrompt(await readPrompt(context, flags), flags)
  await checkWritable('--save-cache', flags.saveCache)
  await withModel(context, flags, async (model) => {
    const { loadCache, saveCache } = flags
    const cache = loadCache === undefined ? model.createCache() : await model.restoreCache(loadCache)
    const result = await run(model, prompt, { flags, search, signal: context.signal, terminal, cache })
    const prefixes = await model.prefixStats()
    if (terminal.isJson) terminal.json({ ...toJson(model, result, flags), ...(prefixes && { prefixes }) })
    else {
      report(result, flags, terminal)
      if (prefixes) terminal.note(prefixLine(prefixes))
    }
    // After the text, which would be lost where the cache can't be written.
    if (saveCache !== undefined) await model.saveCache(cache, saveCache)
    cache.dispose()
    if (result.finishReason === 'aborted') throw new KvasirError('aborted', 'cli', 'interrupted')
  })
}

interface Run {
  readonly flags: GenerateFlags
  readonly search: GenerateOptions
  readonly signal: AbortSignal
  readonly terminal: Terminal
  readonly cache: KvCache
}

async function run(
  model: CausalLM,
  prompt: Prompt,
  { flags, search, signal, terminal, cache }: Run,
): Promise<GenerateResult> {
  const options: GenerateOptions = {
    ...(await toSampling(flags, model.tokenizer)),
    ...search,
    signal,
    cache,
    ...watchReading(terminal),
  }
  if (!flags.stream) return await model.generate(prompt, options)
  for await (const event of model.stream(prompt, options)) {
    if (event.type === 'done') return event.result
    if (event.index === 0) terminal.write(event.text)
  }
  throw new KvasirError('internal', 'cli', 'expected the stream of tokens to end with a result')
}

/** Only what was given. */
function toSearch({ n, logprobs, numBeams, lengthPenalty, earlyStopping, json }: GenerateFlags): GenerateOptions {
  if (logprobs !== undefined && !json) throw invalidArgument('cli', 'expected --json with --logprobs')
  if ((numBeams ?? 1) === 1 && (lengthPenalty !== undefined || earlyStopping !== undefined)) {
    const option = lengthPenalty === undefined ? '--early-stopping' : '--length-penalty'
    throw invalidArgument('cli', `expected --num-beams of at least 2 with ${option}`)
  }
  const early = earlyStopping === 'never' ? earlyStopping : earlyStopping && earlyStopping === 'true'
  const all: GenerateOptions = { n, logprobs, numBeams, lengthPenalty, earlyStopping: early }
  return Object.fromEntries(Object.entries(all).filter(([, value]) => value !== undefined))
}

function toPrompt(text: string, { chat, system }: GenerateFlags): Prompt {
  if (system !== undefined && !chat) throw invalidArgument('cli', 'expected --chat with --system')
  if (!chat) return text
  const message = { role: 'user', content: text }
  return system === undefined ? [message] : [{ role: 'system', content: system }, message]
}

/** A bar while a long prompt is read. */
function watchReading(terminal: Terminal): Pick<GenerateOptions, 'onPrefill'> {
  let progress: ReturnType<Terminal['progress']> | undefined
  return {
    onPrefill: (done, total) => {
      if (total < longPrompt) return
      progress ??= terminal.progress({ ...readingTokens, total })
      progress.update(done)
      if (done >= total) progress.end()
    },
  }
}

function toJson(model: CausalLM, result: GenerateResult, flags: GenerateFlags): object {
  const { promptTokens, reusedTokens, generatedTokens, text, finishReason, prefillMs, decodeMs, kv } = result
  const { bytes, fullBytes, keptTokens, seenTokens } = kv
  return {
    model: modelName(flags),
    policy: model.cacheOptions.policy,
    window: model.cacheOptions.window ?? null,
    promptTokens,
    reusedTokens,
    generatedTokens,
    text,
    finishReason,
    prefillMs,
    decodeMs,
    tokensPerSecond: ratePerSecond(generatedTokens, decodeMs),
    kv: { bytes, fullBytes, keptTokens, seenTokens },
    ...((flags.n !== undefined || flags.logprobs !== undefined) && { choices: result.choices }),
    ...(result.lookup && { lookup: result.lookup }),
  }
}

function report(result: GenerateResult, flags: GenerateFlags, terminal: Terminal): void {
  const { text, choices, promptTokens, reusedTokens, prefillMs, generatedTokens, decodeMs, kv } = result
  if (flags.maxTokens !== 0) {
    terminal.print(flags.stream ? '' : text)
    for (const choice of choices.slice(1)) terminal.print(`\n${choice.text}`)
  }
  const rate = formatCount(ratePerSecond(generatedTokens, decodeMs))
  const written = generatedTokens > 0 ? `, wrote ${formatCount(generatedTokens)} at ${rate} a second` : ''
  const tokens = formatPlural(promptTokens, 'token')
  const reused = reusedTokens > 0 ? ` (${formatCount(reusedTokens)} were kept)` : ''
  const isCutShort = result.finishReason === 'aborted' && generatedTokens === 0
  const time = formatSeconds(prefillMs)
  const read = isCutShort ? `stopped reading ${tokens} after ${time}` : `read ${tokens}${reused} in ${time}`
  terminal.note(
    `${read}${written}; ` +
      `KV cache ${formatBytes(kv.bytes)} for ${formatCount(kv.keptTokens)} of ${formatCount(kv.seenTokens)} tokens ` +
      `(all of them: ${formatBytes(kv.fullBytes)})`,
  )
}

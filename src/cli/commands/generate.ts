/** `kvasir generate`: continues a text. */
import { Command, Option } from 'commander'
import type { CausalLM, GenerateOptions, GenerateResult } from '../../runtime/contract.ts'
import { KvasirError } from '../../tensor/error.ts'
import type { CliContext } from '../context.ts'
import { formatBytes, formatCount, formatSeconds, ratePerSecond } from '../format.ts'
import { type ModelFlags, modelName, withModel } from '../model.ts'
import {
  examples,
  integer,
  jsonOption,
  loadOptions,
  modelOption,
  number,
  policyOption,
  seedOption,
  windowOption,
} from '../options.ts'
import { readPrompt } from '../prompt.ts'
import { createTerminal, type Terminal } from '../terminal.ts'

interface GenerateFlags extends ModelFlags {
  readonly prompt?: string
  readonly promptFile?: string
  readonly maxTokens: number
  readonly temperature?: number
  readonly topK?: number
  readonly topP?: number
  readonly minP?: number
  readonly repetitionPenalty?: number
  readonly seed?: number
  readonly stop?: string[]
  readonly stream?: boolean
  readonly json?: boolean
}

/** Prompts beyond this many tokens get a progress bar. */
const longPrompt = 4096

export function generateCommand(context: CliContext): Command {
  const command = new Command('generate')
    .description('Continue a text. The prompt comes from --prompt, --prompt-file or standard input.')
    .addOption(modelOption())
    .addOption(new Option('--prompt <text>', 'the text to continue').conflicts('promptFile'))
    .addOption(new Option('--prompt-file <path>', 'a UTF-8 file with the text; one line break at its end is left out'))
    .addOption(new Option('--max-tokens <number>', 'most new tokens').argParser(integer(1)).default(128))
    .addOption(new Option('--temperature <number>', '0 takes the likeliest token').argParser(number(0)))
    .addOption(new Option('--top-k <number>', 'sample from so many tokens').argParser(integer(1)))
    .addOption(new Option('--top-p <number>', 'sample from this share of probability').argParser(number(0, 1, true)))
    .addOption(new Option('--min-p <number>', 'least share of the best probability').argParser(number(0, 1)))
    .addOption(new Option('--repetition-penalty <number>', 'above 1 discourages').argParser(number(0, Infinity, true)))
    .addOption(seedOption('makes sampling repeatable'))
    .addOption(new Option('--stop <text...>', 'end before any of these'))
    .addOption(policyOption())
    .addOption(windowOption())
  for (const option of loadOptions()) command.addOption(option)
  return command
    .addOption(new Option('--stream', 'print the text as it comes').conflicts('json'))
    .addOption(jsonOption())
    .addHelpText(
      'after',
      examples(
        'kvasir generate --prompt "Mara put the brass key in the blue drawer." --max-tokens 40',
        'kvasir generate --prompt-file story.txt --policy linear --window 256 --stream',
        'cat story.txt | kvasir generate --temperature 0.8 --seed 7 --json',
      ),
    )
    .action((flags: GenerateFlags) => generate(context, flags))
}

async function generate(context: CliContext, flags: GenerateFlags): Promise<void> {
  const terminal = createTerminal(context, flags.json === true)
  const prompt = await readPrompt(context, flags)
  await withModel(context, flags, async (model) => {
    const result = await run(model, prompt, flags, context.signal, terminal)
    if (terminal.isJson) terminal.json(toJson(model, result, flags))
    else report(result, flags, terminal)
    if (result.finishReason === 'aborted') throw new KvasirError('aborted', 'cli', 'interrupted')
  })
}

async function run(
  model: CausalLM,
  prompt: string,
  flags: GenerateFlags,
  signal: AbortSignal,
  terminal: Terminal,
): Promise<GenerateResult> {
  const { maxTokens, temperature, topK, topP, minP, repetitionPenalty, seed, stop } = flags
  const sampling = { temperature, topK, topP, minP, repetitionPenalty, seed }
  const options: GenerateOptions = { ...sampling, maxNewTokens: maxTokens, stop, signal, ...watchReading(terminal) }
  if (!flags.stream) return await model.generate(prompt, options)
  for await (const event of model.stream(prompt, options)) {
    if (event.type === 'done') return event.result
    terminal.write(event.text)
  }
  throw new KvasirError('internal', 'cli', 'expected the stream of tokens to end with a result')
}

/** A bar while a long prompt is read. */
function watchReading(terminal: Terminal): Pick<GenerateOptions, 'onPrefill'> {
  let progress: ReturnType<Terminal['progress']> | undefined
  return {
    onPrefill: (done, total) => {
      if (total < longPrompt) return
      progress ??= terminal.progress({ title: 'Reading', total, unit: 'tokens' })
      progress.update(done)
      if (done >= total) progress.end()
    },
  }
}

function toJson(model: CausalLM, result: GenerateResult, flags: GenerateFlags): object {
  const { promptTokens, generatedTokens, text, finishReason, prefillMs, decodeMs, kv } = result
  const { bytes, fullBytes, keptTokens, seenTokens } = kv
  return {
    model: modelName(flags),
    policy: model.cacheOptions.policy,
    window: model.cacheOptions.window ?? null,
    promptTokens,
    generatedTokens,
    text,
    finishReason,
    prefillMs,
    decodeMs,
    tokensPerSecond: ratePerSecond(generatedTokens, decodeMs),
    kv: { bytes, fullBytes, keptTokens, seenTokens },
  }
}

function report(result: GenerateResult, { stream }: GenerateFlags, terminal: Terminal): void {
  const { text, promptTokens, prefillMs, generatedTokens, decodeMs, kv } = result
  terminal.print(stream ? '' : text)
  terminal.note(
    `read ${formatCount(promptTokens)} tokens in ${formatSeconds(prefillMs)}, ` +
      `wrote ${formatCount(generatedTokens)} at ${formatCount(ratePerSecond(generatedTokens, decodeMs))} a second; ` +
      `KV cache ${formatBytes(kv.bytes)} for ${formatCount(kv.keptTokens)} of ${formatCount(kv.seenTokens)} tokens ` +
      `(all of them: ${formatBytes(kv.fullBytes)})`,
  )
}

/** `kvasir eval length`: texts far beyond the length that a model was trained on, by what its cache keeps. */
import { Command, Option } from 'commander'
import { createDocument } from '../../../eval/document.ts'
import { evalLength, type LengthResult } from '../../../eval/length.ts'
import type { CausalLM } from '../../runtime/contract.ts'
import type { CliContext } from '../context.ts'
import { formatBytes, formatCount } from '../format.ts'
import { withModel } from '../model.ts'
import { examples, integer, integers, jsonOption, modelOption, seedOption, windowOption, words } from '../options.ts'
import { readingTokens, withProgress } from '../progress.ts'
import { createTerminal, type Terminal } from '../terminal.ts'
import { readTextFile } from '../text-file.ts'
import { addModelOptions, defaultSeed, defaultWindow, type EvalFlags } from './eval-flags.ts'

interface LengthFlags extends EvalFlags {
  readonly trained: number
  readonly predict: number
  readonly window: number
  readonly text?: string
  readonly times?: number[]
  readonly caches?: string[]
}

const usualTimes = [1, 4, 16]
const usualCaches = ['full', 'streaming', 'streaming:rank']

export function evalLengthCommand(context: CliContext): Command {
  const command = new Command('length')
    .description('Predict and write at many times the length that a model was trained on, beside a reading within it.')
    .addOption(modelOption())
    .addOption(new Option('--text <path>', 'a text to read (default: a generated story)'))
    .addOption(
      new Option('--trained <tokens>', 'of the longest texts that the model knows').argParser(integer(2)).default(1024),
    )
    .addOption(new Option('--times <numbers...>', 'of it, to look at (default: 1, 4, 16)').argParser(integers(1)))
    .addOption(
      new Option('--caches <names...>', 'policies, as streaming or streaming:rank (default: these and full)').argParser(
        words,
      ),
    )
    .addOption(windowOption(defaultWindow))
    .addOption(new Option('--predict <tokens>', 'compared at each').argParser(integer(1)).default(256))
    .addOption(seedOption('seed of the story and of what is written', defaultSeed))
  return addModelOptions(command)
    .addOption(jsonOption())
    .addHelpText(
      'after',
      examples(
        'kvasir eval length',
        'kvasir eval length --times 1,64 --caches streaming:rank,linear',
        'kvasir eval length --model ./my-model --text book.txt --trained 2048 --window 1024 --json',
      ),
    )
    .action((flags: LengthFlags) => length(context, flags))
}

async function length(context: CliContext, flags: LengthFlags): Promise<void> {
  const terminal = createTerminal(context, flags.json === true)
  const { text, trained, times = usualTimes, caches = usualCaches, window, predict, seed, ...load } = flags
  const result = await withModel(context, { ...load, seed }, async (model) => {
    const tokens = await readTokens(model, flags, Math.max(...times) * trained)
    const chosen = { tokens, trained, times, caches, window, predict, seed, signal: context.signal }
    return await withProgress(terminal, readingTokens, (onProgress) => evalLength(model, { ...chosen, onProgress }))
  })
  if (terminal.isJson) terminal.json(result)
  else report(result, terminal)
}

/** Facts all over a story, so that its end is like its beginning. */
async function readTokens({ tokenizer }: CausalLM, { text, seed }: LengthFlags, count: number): Promise<Int32Array> {
  if (text !== undefined) return Int32Array.from(tokenizer.encode(await readTextFile('the text', text)))
  const facts = Math.min(200, Math.ceil(count / 128))
  // A story ends somewhat after what is asked for: facts take the first nine tenths.
  return createDocument(tokenizer, { seed, tokens: count, facts, placement: 'spread' }).tokens
}

function report({ rows, trained, window, predict }: LengthResult, terminal: Terminal): void {
  terminal.table(
    ['cache', 'tokens', 'trained', 'loss', 'within', 'written', 'within', 'KV cache'],
    rows.map(({ cache, tokens, loss, freshLoss, writtenLoss, freshWrittenLoss, kvBytes }) => [
      cache,
      formatCount(tokens),
      `${tokens / trained}x`,
      ...[loss, freshLoss, writtenLoss, freshWrittenLoss].map((nats) => nats.toFixed(3)),
      formatBytes(kvBytes),
    ]),
  )
  terminal.print()
  terminal.print(
    `Means over ${formatCount(predict)} tokens, nats; window ${formatCount(window)}. Within: the same model, having read ` +
      `the last ${formatCount(trained)} tokens alone, on the same text and on what it writes itself.`,
  )
}

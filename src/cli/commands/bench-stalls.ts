/** `kvasir bench stalls`: how long the event loop of a program stands still while a model writes. */
import { Command, Option } from 'commander'
import type { CliContext } from '../context.ts'
import { formatCount } from '../format.ts'
import { type ModelFlags, modelName, namingPreset } from '../model.ts'
import { addOptions, examples, integer, jsonOption, loadOptions, modelOption, toLoadOptions } from '../options.ts'
import { bundledModel } from '../package-root.ts'
import { createTerminal } from '../terminal.ts'

interface StallFlags extends ModelFlags {
  readonly promptTokens: number
  readonly maxTokens: number
  readonly json?: boolean
}

export function benchStallsCommand(context: CliContext): Command {
  const command = new Command('stalls')
    .description("Measure how long the caller's event loop stands still while a model reads and writes.")
    .addOption(modelOption())
    .addOption(new Option('--prompt-tokens <number>', 'tokens that are read first').argParser(integer(1)).default(2048))
    .addOption(new Option('--max-tokens <number>', 'tokens that are written').argParser(integer(1)).default(200))
  return addOptions(command, loadOptions())
    .addOption(jsonOption())
    .addHelpText('after', examples('kvasir bench stalls', 'kvasir bench stalls --model path/to/model --json'))
    .action((flags: StallFlags) => stalls(context, flags))
}

async function stalls(context: CliContext, flags: StallFlags): Promise<void> {
  const terminal = createTerminal(context, flags.json === true)
  const { benchStalls } = await import('../../../bench/stalls.ts')
  const { promptTokens, maxTokens: maxNewTokens } = flags
  const path = flags.model ?? bundledModel()
  const sizes = { promptTokens, maxNewTokens }
  const rows = await namingPreset(flags, () =>
    benchStalls({ path, load: toLoadOptions(flags), ...sizes, signal: context.signal }),
  )
  if (terminal.isJson) {
    terminal.json({ model: modelName(flags), rows })
    return
  }
  terminal.table(
    ['thread of the model', 'prompt', 'written', 'tokens/s', 'longest stall ms', 'p99 ms'],
    rows.map((row) => [
      row.thread,
      formatCount(row.promptTokens),
      formatCount(row.generatedTokens),
      formatCount(row.tokensPerSecond),
      row.longestStallMs.toFixed(1),
      row.p99StallMs.toFixed(1),
    ]),
  )
}

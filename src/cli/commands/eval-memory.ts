/** `kvasir eval memory`: bytes of the KV cache and of the process over a long read. */
import { Command, Option } from 'commander'
import { evalMemory, firstSampleTokens, type MemoryResult } from '../../../eval/memory.ts'
import { plotMemory } from '../../../eval/plot.ts'
import type { CliContext } from '../context.ts'
import { formatBytes, formatCount, formatSeconds } from '../format.ts'
import { withModel } from '../model.ts'
import { examples, integer, jsonOption, modelOption, seedOption } from '../options.ts'
import { checkWritable, writePlot } from '../output-file.ts'
import { readingTokens, withProgress } from '../progress.ts'
import { createTerminal, type Terminal } from '../terminal.ts'
import { addCacheOptions, defaultSeed, type EvalFlags, withoutIdleWindow } from './eval-flags.ts'

interface MemoryFlags extends EvalFlags {
  readonly tokens: number
  readonly samples: number
  readonly plot?: string
}

export function evalMemoryCommand(context: CliContext): Command {
  const command = new Command('memory')
    .description('Read one long document and sample the memory of the KV cache and of the process.')
    .addOption(modelOption())
    .addOption(
      new Option('--tokens <number>', 'length of the document').argParser(integer(firstSampleTokens)).default(200_000),
    )
    .addOption(new Option('--samples <number>', 'times that memory is looked at').argParser(integer(2)).default(20))
    .addOption(seedOption('seed of the document', defaultSeed))
    .addOption(new Option('--plot <file>', 'write a picture (SVG) of the samples'))
  return addCacheOptions(command)
    .addOption(jsonOption())
    .addHelpText(
      'after',
      examples(
        'kvasir eval memory',
        'kvasir eval memory --tokens 1000000 --plot memory.svg',
        'kvasir eval memory --json',
      ),
    )
    .action((flags: MemoryFlags, self: Command) => memory(context, withoutIdleWindow(flags, self)))
}

async function memory(context: CliContext, flags: MemoryFlags): Promise<void> {
  const terminal = createTerminal(context, flags.json === true)
  await checkWritable('--plot', flags.plot)
  const result = await withModel(context, flags, async (model) => {
    const { tokens, samples, seed } = flags
    return await withProgress(terminal, readingTokens, async (tell) => {
      tell(0, tokens)
      return await evalMemory(model, {
        ...{ tokens, samples, seed, signal: context.signal },
        onProgress: (tokensRead, sample) => tell(tokensRead, tokens, sample && describe(sample)),
      })
    })
  })
  if (terminal.isJson) terminal.json(result)
  else report(result, terminal)
  if (flags.plot !== undefined) await writePlot(terminal, flags.plot, await plotMemory(result))
}

function describe({ kvBytes, rssBytes }: MemoryResult['samples'][number]): string {
  return `KV cache ${formatBytes(kvBytes)}, process ${formatBytes(rssBytes)}`
}

function report(result: MemoryResult, terminal: Terminal): void {
  terminal.table(
    ['tokens', 'KV cache', 'cache of all tokens', 'process (RSS)'],
    result.samples.map(({ tokens, kvBytes, fullKvBytes, rssBytes }) => [
      formatCount(tokens),
      formatBytes(kvBytes),
      formatBytes(fullKvBytes),
      formatBytes(rssBytes),
    ]),
    0,
  )
  terminal.print()
  terminal.print(
    `The KV cache ${result.isKvConstant ? 'had the same size in all samples' : 'changed its size'}; the process ` +
      `${result.rssGrowthBytes > 0 ? 'grew' : 'shrank'} by ${formatBytes(Math.abs(result.rssGrowthBytes))} from the ` +
      `first half of the samples to the second, by medians (${formatSeconds(result.seconds * 1000)}).`,
  )
}

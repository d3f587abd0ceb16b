/** `kvasir inspect`: what a model consists of, and what its cache costs; or what a file of caches holds. */
import { Command, Option } from 'commander'
import type { ModelDescription } from '../../runtime/contract.ts'
import { inspectCacheFile } from '../../runtime/index.ts'
import { invalidArgument } from '../../tensor/error.ts'
import { cacheFileJson, reportCacheFile } from '../cache-report.ts'
import type { CliContext } from '../context.ts'
import { formatBytes, formatCount } from '../format.ts'
import { type ModelFlags, modelName, withModel } from '../model.ts'
import { examples, jsonOption, loadOptions } from '../options.ts'
import { createTerminal, type Terminal } from '../terminal.ts'

interface InspectFlags extends ModelFlags {
  readonly cache?: string
  readonly json?: boolean
}

const longContext = 131_072

export function inspectCommand(context: CliContext): Command {
  const command = new Command('inspect')
    .description('Show the segments and attention nodes of a model and the bytes that its KV cache takes.')
    .argument('[model]', 'folder with config.json, tokenizer.json and safetensors (default: the bundled kvasir-tiny)')
  for (const option of loadOptions().filter(({ long }) => long === '--backend' || long === '--quantize')) {
    command.addOption(option)
  }
  return command
    .addOption(new Option('--cache <file>', 'show what a saved cache holds instead of a model'))
    .addOption(jsonOption())
    .addHelpText(
      'after',
      examples('kvasir inspect', 'kvasir inspect path/to/model --json', 'kvasir inspect --cache story.cache'),
    )
    .action((model: string | undefined, flags: InspectFlags) => inspect(context, { ...flags, model }))
}

async function inspect(context: CliContext, flags: InspectFlags): Promise<void> {
  const terminal = createTerminal(context, flags.json === true)
  if (flags.cache !== undefined) {
    if (flags.model !== undefined) throw invalidArgument('cli', 'expected a model or --cache, got both')
    const found = await inspectCacheFile(flags.cache)
    if (terminal.isJson) terminal.json(cacheFileJson(flags.cache, found))
    else reportCacheFile(flags.cache, found, terminal)
    return
  }
  const description = await withModel(context, flags, async (model) => model.describe())
  if (terminal.isJson) terminal.json({ model: modelName(flags), ...description })
  else report(modelName(flags), description, terminal)
}

function report(name: string, description: ModelDescription, terminal: Terminal): void {
  const { architecture, parameters, weightBytes, segments, attention, kvBytesPerToken, backend, file } = description
  const { bold } = terminal.paint
  terminal.print(`${bold(name)}: ${architecture}, ${formatCount(parameters)} parameters, ${formatBytes(weightBytes)}`)
  if (file !== undefined) terminal.print(`Cut from ${file}; its weights stay where they are.`)
  terminal.print(`Attention runs on ${backend}.`)
  terminal.print()
  terminal.table(
    ['segment', 'nodes', 'weights'],
    segments.map((segment) => [segment.name, formatCount(segment.nodes), formatBytes(segment.weightBytes)]),
  )
  terminal.print()
  terminal.table(
    ['attention', 'layer', 'heads', 'KV heads', 'head dim', 'window', 'rotation', 'was'],
    attention.map(({ node, layer, numHeads, numKvHeads, headDim, window, rotation, was }) =>
      [node, layer, numHeads, numKvHeads, headDim, window ?? 'all', rotation ?? '', was ?? 'built'].map(String),
    ),
  )
  terminal.print()
  terminal.print(
    `A cache that keeps everything costs ${formatBytes(kvBytesPerToken)} a token: ` +
      `${formatBytes(kvBytesPerToken * longContext)} at ${formatCount(longContext)} tokens.`,
  )
}

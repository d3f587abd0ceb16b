/** `kvasir inspect`: what a model consists of, and what its cache costs; or what a file of caches holds. */
import { Command, Option } from 'commander'
import type { ModelDescription } from '../../runtime/contract.ts'
import { inspectCacheFile } from '../../runtime/index.ts'
import { invalidArgument } from '../../tensor/error.ts'
import { cacheFileJson, reportCacheFile } from '../cache-report.ts'
import type { CliContext } from '../context.ts'
import { formatBytes, formatCount, wrapText } from '../format.ts'
import { type ModelFlags, modelName, modelOf, withModel } from '../model.ts'
import { addOptions, examples, jsonOption, loadOptions, modelOption } from '../options.ts'
import { createTerminal, type Terminal } from '../terminal.ts'

interface InspectFlags extends ModelFlags {
  readonly cache?: string
  readonly json?: boolean
}

const longContext = 131_072

/** Options of loading that change what there is to see. */
const inspected: readonly string[] = ['--backend', '--quantize', '--dtype', '--kv-dtype']

export function inspectCommand(context: CliContext): Command {
  const command = new Command('inspect')
    .description('Show the segments and attention nodes of a model and the bytes that its KV cache takes.')
    .argument('[model]', 'the same as --model')
    .addOption(modelOption())
  return addOptions(
    command,
    loadOptions().filter(({ long }) => long && inspected.includes(long)),
  )
    .addOption(new Option('--cache <file>', 'show what a saved cache holds instead of a model'))
    .addOption(jsonOption())
    .addHelpText(
      'after',
      examples('kvasir inspect', 'kvasir inspect path/to/model --json', 'kvasir inspect --cache story.cache'),
    )
    .action((model: string | undefined, flags: InspectFlags) =>
      inspect(context, { ...flags, ...modelOf(model, flags) }),
    )
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
  const { weightFiles, states = [], warnings = [], policies } = description
  const { bold } = terminal.paint
  terminal.print(`${bold(name)}: ${architecture}, ${formatCount(parameters)} parameters, ${formatBytes(weightBytes)}`)
  if (file !== undefined) terminal.print(`Cut from ${file}; its weights stay where they are.`)
  for (const { file: place, bytes } of weightFiles) terminal.print(`Weights: ${formatBytes(bytes)} in ${place}`)
  for (const { name: state, bytes } of states) {
    const size = bytes === undefined ? 'grows with the text' : formatBytes(bytes)
    terminal.print(`State that passes through: ${state}, ${size}`)
  }
  for (const warning of warnings) terminal.print(terminal.paint.yellow(`Stays with ONNX Runtime: ${warning}`))
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
  terminal.print()
  for (const { policy, window, why } of policies) {
    const size = window === undefined ? '' : ` (window ${formatCount(window)})`
    terminal.print(wrapText(`Policy ${policy}${size}: ${why}`, terminal.width))
  }
}

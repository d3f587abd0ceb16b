/** `kvasir bench prefix`: time to the first token where a prompt begins like one before. */
import { Command, Option } from 'commander'
import type { PrefixRow } from '../../../bench/prefix.ts'
import type { LoadOptions } from '../../runtime/contract.ts'
import type { CliContext } from '../context.ts'
import { formatCount } from '../format.ts'
import { type ModelFlags, modelName, namingPreset } from '../model.ts'
import {
  addOptions,
  examples,
  integer,
  integers,
  jsonOption,
  loadOptions,
  modelOption,
  policyOption,
  toLoadOptions,
  windowOption,
} from '../options.ts'
import { checkWritable, writePlot } from '../output-file.ts'
import { bundledModel } from '../package-root.ts'
import { withProgress } from '../progress.ts'
import { createTerminal, type Terminal } from '../terminal.ts'

interface PrefixBenchFlags extends ModelFlags {
  readonly random?: boolean
  readonly tokens?: number[]
  readonly newTokens: number
  readonly repeat: number
  readonly redis?: string
  readonly plot?: string
  readonly json?: boolean
}

const defaultTokens = [1024, 4096]
/** A model of random weights in the shape of a published one. */
const randomShape = 'smollm2-135m'

export function benchPrefixCommand(context: CliContext): Command {
  const command = new Command('prefix')
    .description(
      'Time the first token of a prompt whose beginning was read before: computed, from RAM, disk and Redis.',
    )
    .addOption(modelOption())
    .addOption(new Option('--random', `a model of random weights in the shape of ${randomShape}`).conflicts('model'))
    .addOption(
      new Option('--tokens <numbers...>', 'lengths of what is common (default: 1024 and 4096)').argParser(integers(64)),
    )
    .addOption(new Option('--new-tokens <number>', 'tokens after it').argParser(integer(1)).default(16))
    .addOption(new Option('--repeat <rounds>', 'prompts of each length').argParser(integer(1)).default(5))
    .addOption(new Option('--redis <url>', 'a server that may be written to (default: none, no row)'))
    .addOption(policyOption())
    .addOption(windowOption())
  return addOptions(command, loadOptions())
    .addOption(new Option('--plot <file>', 'draw times over lengths, SVG'))
    .addOption(jsonOption())
    .addHelpText(
      'after',
      examples(
        'kvasir bench prefix --policy full',
        'kvasir bench prefix --random --redis redis://localhost:6379 --json',
      ),
    )
    .action((flags: PrefixBenchFlags) => prefix(context, flags))
}

async function prefix(context: CliContext, flags: PrefixBenchFlags): Promise<void> {
  const terminal = createTerminal(context, flags.json === true)
  const { benchPrefix, plotPrefix } = await import('../../../bench/prefix.ts')
  const { tokens = defaultTokens, newTokens, repeat: rounds, redis, plot } = flags
  await checkWritable('--plot', plot)
  const total = tokens.length * (redis === undefined ? 3 : 4)
  const { path, name } = await chooseModel(flags, context.signal)
  const { prefixCache: _, ...load } = toLoadOptions(flags)
  const weights: LoadOptions = flags.random ? { dtype: 'fp32' } : {}
  const rows = await withProgress(terminal, { title: 'Measuring', unit: 'cases', hasRate: false }, (tell) => {
    let done = 0
    tell(done, total)
    const onProgress = () => tell(++done, total)
    const sizes = { path, tokens, newTokens, rounds, redis, signal: context.signal }
    return namingPreset(flags, () => benchPrefix({ ...sizes, load: { ...weights, ...load }, onProgress }))
  })
  if (terminal.isJson)
    terminal.json({ model: name, policy: flags.policy ?? null, storage: flags.kvStorage ?? null, rows })
  else report(rows, terminal)
  if (plot !== undefined) await writePlot(terminal, plot, await plotPrefix(name, rows))
}

async function chooseModel(flags: PrefixBenchFlags, signal: AbortSignal): Promise<{ path: string; name: string }> {
  if (!flags.random) return { path: flags.model ?? bundledModel(), name: modelName(flags) }
  const { prepareModel } = await import('../../../bench/generate/models.ts')
  const { folder } = await prepareModel(randomShape, 'f32', signal)
  return { path: folder, name: `${randomShape} of random weights` }
}

function report(rows: readonly PrefixRow[], terminal: Terminal): void {
  terminal.table(
    ['beginning from', 'tokens in common', 'new', 'reused', 'ms to first token', 'times faster'],
    rows.map((row) => [
      row.source,
      formatCount(row.prefixTokens),
      formatCount(row.newTokens),
      formatCount(row.reusedTokens),
      row.firstTokenMs.toFixed(1),
      `${row.speedup.toFixed(1)}x`,
    ]),
    1,
  )
}

/** `kvasir bench linear`: a decode step with the linear cache beside ones with caches that keep everything. */
import { Command, Option } from 'commander'
import type { FlatnessResult, LinearBenchOptions, LinearBenchRow } from '../../../bench/linear.ts'
import type { CliContext } from '../context.ts'
import { formatBytes, formatCount } from '../format.ts'
import { backendOption, examples, integer, integers, jsonOption, threadsOption, windowOption } from '../options.ts'
import { withProgress } from '../progress.ts'
import { createTerminal, type Terminal } from '../terminal.ts'

interface LinearFlags extends LinearBenchOptions {
  readonly json?: boolean
}

const defaultTokens = [1024, 2048, 4096, 8192, 16_384, 32_768, 65_536]
/** What is measured at each length: linear, full and dense. */
const measurements = 2

export function benchLinearCommand(context: CliContext): Command {
  return new Command('linear')
    .description('Time a decode step with the linear cache beside caches that keep everything, as the text grows.')
    .addOption(
      new Option('--tokens <numbers...>', 'lengths of the text, ascending (default: 1024 to 65536)').argParser(
        integers(64),
      ),
    )
    .addOption(windowOption(2048))
    .addOption(new Option('--heads <number>', 'H, as many KV heads').argParser(integer(1)).default(32))
    .addOption(new Option('--head-dim <number>', 'D').argParser(integer(1)).default(128))
    .addOption(new Option('--dtype <type>', 'storage of keys and values').choices(['f32', 'f16']).default('f32'))
    .addOption(backendOption())
    .addOption(threadsOption())
    .addOption(jsonOption())
    .addHelpText('after', examples('kvasir bench linear', 'kvasir bench linear --tokens 4096 8192 --dtype f16 --json'))
    .action((flags: LinearFlags) => linear(context, flags))
}

async function linear(context: CliContext, flags: LinearFlags): Promise<void> {
  const terminal = createTerminal(context, flags.json === true)
  const { benchFlatness, benchLinear } = await import('../../../bench/linear.ts')
  const { tokens = defaultTokens, window, heads, headDim, dtype, backend, threads } = flags
  const total = tokens.length * measurements
  const options = { tokens, window, heads, headDim, dtype, backend, threads, signal: context.signal }
  const rows = await withProgress(terminal, { title: 'Measuring', unit: 'cases', hasRate: false }, (tell) => {
    let done = 0
    tell(done, total)
    return benchLinear({ ...options, onProgress: () => tell(++done, total) })
  })
  const flatness = await benchFlatness(options)
  if (terminal.isJson) terminal.json({ window, heads, headDim, dtype, rows, flatness })
  else report(rows, flatness, terminal)
}

function report(rows: readonly LinearBenchRow[], flatness: FlatnessResult, terminal: Terminal): void {
  terminal.table(
    ['tokens', 'full memory', 'linear memory', 'dense ms', 'full ms', 'linear ms', 'speed-up', 'over dense'],
    rows.map((row) => [
      formatCount(row.tokens),
      formatBytes(row.fullBytes),
      formatBytes(row.linearBytes),
      row.denseMs.toFixed(2),
      row.fullMs.toFixed(2),
      row.linearMs.toFixed(2),
      `${row.speedup.toFixed(1)}x`,
      `${row.speedupOverDense.toFixed(1)}x`,
    ]),
    0,
  )
  terminal.print()
  terminal.print(
    'full: the whole history, the best W chosen anew at each step. dense: attention over the whole history.\n' +
      `A step of the linear cache takes ${flatness.atWindowMs.toFixed(2)} ms after ${formatCount(flatness.window)} ` +
      `tokens and ${flatness.atMillionMs.toFixed(2)} ms after 1,048,576: ${flatness.ratio.toFixed(3)} times as long.`,
  )
}

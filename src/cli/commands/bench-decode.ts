/** `kvasir bench decode`: one decode step of attention beside ONNX Runtime's, and beside the roofline. */
import { Command, Option } from 'commander'
import type { DecodeBenchOptions, DecodeBenchRow } from '../../../bench/decode.ts'
import type { CliContext } from '../context.ts'
import { formatCount } from '../format.ts'
import { examples, integer, integers, jsonOption, threadsOption } from '../options.ts'
import { createTerminal, type Terminal } from '../terminal.ts'

interface DecodeFlags {
  readonly backend?: 'native' | 'wasm'
  readonly dtype?: 'f32' | 'f16'
  readonly kvLengths?: number[]
  readonly groups?: number[]
  readonly kvHeads?: number
  readonly headDim?: number
  readonly threads?: number
  readonly json?: boolean
}

export function benchDecodeCommand(context: CliContext): Command {
  return new Command('decode')
    .description("Time one decode step of attention beside ONNX Runtime's and the limits of this machine.")
    .addOption(new Option('--backend <name>', 'only this one').choices(['native', 'wasm']))
    .addOption(new Option('--dtype <type>', 'only this storage of keys and values').choices(['f32', 'f16']))
    .addOption(new Option('--kv-lengths <tokens...>', 'S: tokens in the cache').argParser(integers(1)))
    .addOption(new Option('--groups <numbers...>', 'G: query heads for each KV head').argParser(integers(1)))
    .addOption(new Option('--kv-heads <number>', 'K').argParser(integer(1)))
    .addOption(new Option('--head-dim <number>', 'D').argParser(integer(1)))
    .addOption(threadsOption())
    .addOption(jsonOption())
    .addHelpText(
      'after',
      examples(
        'kvasir bench decode',
        'kvasir bench decode --backend native --dtype f16 --kv-lengths 32768 --groups 1 4',
      ),
    )
    .action((flags: DecodeFlags) => decode(context, flags))
}

async function decode(context: CliContext, flags: DecodeFlags): Promise<void> {
  const terminal = createTerminal(context, flags.json === true)
  const { benchDecode } = await import('../../../bench/decode.ts')
  let progress: ReturnType<Terminal['progress']> | undefined
  const options: DecodeBenchOptions = {
    backends: flags.backend && [flags.backend],
    dtypes: flags.dtype && [flags.dtype],
    kvLengths: flags.kvLengths,
    groups: flags.groups,
    kvHeads: flags.kvHeads,
    headDim: flags.headDim,
    threads: flags.threads,
    signal: context.signal,
    onRow: (_, done, total) => {
      progress ??= terminal.progress({ title: 'Measuring', total, unit: 'cases', hasRate: false })
      progress.update(done)
    },
  }
  const rows = await benchDecode(options).finally(() => progress?.end())
  if (terminal.isJson) terminal.json({ rows })
  else report(rows, terminal)
}

function report(rows: readonly DecodeBenchRow[], terminal: Terminal): void {
  terminal.table(
    ['backend', 'type', 'heads', 'S', 'ms', 'GB/s', 'read GB/s', 'FMA GFLOP/s', 'of the limit', 'ORT ms', 'faster'],
    rows.map((row) => [
      row.backend,
      row.dtype,
      `${row.heads}/${row.kvHeads}x${row.headDim}`,
      formatCount(row.kvLength),
      row.ms.toFixed(2),
      row.gbPerSecond.toFixed(1),
      row.readGbPerSecond.toFixed(1),
      row.fmaGflops.toFixed(0),
      `${(100 * row.shareOfLimit).toFixed(0)} %`,
      row.onnxruntimeMs.toFixed(1),
      `${row.ratioToOnnxruntime.toFixed(1)}x`,
    ]),
    3,
  )
  terminal.print()
  terminal.print(
    'S tokens cached. The limit is the roofline: the larger of bytes over read bandwidth and operations over the FMA ' +
      'rate.\nRead bandwidth and FMA rate were measured in this run, with the same threads. ORT: onnxruntime, f32.',
  )
}

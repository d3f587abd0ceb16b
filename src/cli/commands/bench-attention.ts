/** `kvasir bench attention`: our kernels beside ONNX Runtime's, and beside the roofline. */
import { Command, Option } from 'commander'
import {
  type CandidateName,
  candidateNames,
  type Phase,
  phases,
  queryTypes,
} from '../../../bench/attention/contract.ts'
import type { FloatType, StorageType } from '../../kernels/index.ts'
import { storageTypes } from '../../kernels/storage.ts'
import type { CliContext } from '../context.ts'
import { examples, integer, integers, names } from '../options.ts'
import { reportAttention } from './bench-attention-report.ts'
import { type RoundFlags, runBench, withRounds } from './bench-run.ts'

interface AttentionFlags extends RoundFlags {
  readonly phase: Phase
  readonly candidates?: CandidateName[]
  readonly kvDtype?: StorageType[]
  readonly queryDtype?: FloatType
  readonly heads?: number[]
  readonly kvHeads?: number
  readonly headDim?: number
  readonly lengths?: number[]
  readonly window?: number
}

export function benchAttentionCommand(context: CliContext): Command {
  const command = new Command('attention')
    .description("Time attention beside ONNX Runtime's and the limits of this machine, on the same numbers.")
    .addOption(
      new Option('--phase <name>', 'decode: one query over S tokens; prefill: N tokens, causal; memory: of one prefill')
        .choices(phases)
        .default('decode'),
    )
    .addOption(new Option('--kv-dtype <types...>', 'storage of keys and values').argParser(names(storageTypes)))
    .addOption(
      new Option('--query-dtype <type>', 'queries and results (default: f32 for decode, else as keys)').choices(
        queryTypes,
      ),
    )
    .addOption(new Option('--heads <numbers...>', 'H: query heads').argParser(integers(1)))
    .addOption(new Option('--kv-heads <number>', 'K').argParser(integer(1)))
    .addOption(new Option('--head-dim <number>', 'D').argParser(integer(1)))
    .addOption(new Option('--lengths <tokens...>', 'S of decode, N of prefill').argParser(integers(1)))
    .addOption(new Option('--window <tokens>', 'keys that a query sees, its own included').argParser(integer(1)))
    .addOption(
      new Option('--candidates <names...>', 'only these: native, wasm, ort-node-gqa, ...').argParser(
        names(candidateNames),
      ),
    )
  const text = {
    repeat: 'rounds in which all take turns',
    quick: 'few and short measurements: to see that all works',
    plot: 'draw times over lengths, SVG',
  }
  return withRounds(command, text)
    .addHelpText(
      'after',
      examples(
        'kvasir bench attention --quick',
        'kvasir bench attention --phase decode --kv-dtype f16 --heads 8,32,64 --lengths 512,2048,32768 --plot decode.svg',
        'kvasir bench attention --phase prefill --lengths 512,2048 --candidates native,ort-node-gqa',
        'kvasir bench attention --phase prefill --lengths 16384 --window 1024 --candidates native',
      ),
    )
    .action((flags: AttentionFlags) => attention(context, flags))
}

async function attention(context: CliContext, flags: AttentionFlags): Promise<void> {
  const { kvDtype, quick, plot, json, ...rest } = flags
  const { benchAttention } = await import('../../../bench/attention/run.ts')
  await runBench(
    context,
    { json, plot },
    {
      measure: (running) => benchAttention({ ...rest, kvDtypes: kvDtype, isQuick: quick, ...running }),
      draw: async (report) => (await import('../../../bench/attention/plot.ts')).plotAttention(report),
      print: reportAttention,
    },
  )
}

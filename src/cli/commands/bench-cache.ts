/** `kvasir bench cache`: a decode step by policy, storage type and tokens so far, and what of it is the update. */
import { Command, Option } from 'commander'
import type { CacheType } from '../../../bench/cache/contract.ts'
import type { PolicyChoice } from '../../cache/contract.ts'
import { storageTypes } from '../../kernels/index.ts'
import type { CliContext } from '../context.ts'
import { examples, integer, integers, names, policies } from '../options.ts'
import { reportCache } from './bench-cache-report.ts'
import { type RoundFlags, runBench, withRounds } from './bench-run.ts'

interface CacheFlags extends RoundFlags {
  readonly policies?: PolicyChoice[]
  readonly kvDtype?: CacheType[]
  readonly lengths?: number[]
  readonly window?: number
  readonly heads?: number
  readonly kvHeads?: number
  readonly headDim?: number
  readonly recall?: number
}

export function benchCacheCommand(context: CliContext): Command {
  const command = new Command('cache')
    .description('Time a decode step of one layer by policy and tokens so far, and what of it is the cache itself.')
    .addOption(new Option('--policies <names...>', 'which tokens stay (default: each policy)').argParser(policies))
    .addOption(new Option('--kv-dtype <types...>', 'storage of keys and values').argParser(names(storageTypes)))
    .addOption(
      new Option('--lengths <tokens...>', 'S: tokens that came before (1024 to 1048576)').argParser(integers(2)),
    )
    .addOption(new Option('--window <tokens>', 'W of policies that have one (2048)').argParser(integer(1)))
    .addOption(new Option('--heads <number>', 'H').argParser(integer(1)))
    .addOption(new Option('--kv-heads <number>', 'K').argParser(integer(1)))
    .addOption(new Option('--head-dim <number>', 'D').argParser(integer(1)))
    .addOption(
      new Option('--recall <pages>', 'evicted pages that come back for each token').argParser(integer(1, 4096)),
    )
  const text = {
    repeat: 'rounds of the same steps',
    quick: 'few steps of a small layer: to see that all works',
    plot: 'draw steps and bytes over tokens, SVG',
  }
  return withRounds(command, text)
    .addHelpText(
      'after',
      examples(
        'kvasir bench cache --quick',
        'kvasir bench cache --policies linear,h2o --lengths 2048,65536,1048576 --plot cache.svg',
        'kvasir bench cache --policies linear --kv-dtype f32,f16 --lengths 16384 --json',
      ),
    )
    .action((flags: CacheFlags) => cache(context, flags))
}

async function cache(context: CliContext, flags: CacheFlags): Promise<void> {
  const { kvDtype, quick, plot, json, ...rest } = flags
  const { benchCache } = await import('../../../bench/cache/run.ts')
  await runBench(
    context,
    { json, plot },
    {
      measure: (running) => benchCache({ ...rest, kvDtypes: kvDtype, isQuick: quick, ...running }),
      draw: async (report) => (await import('../../../bench/cache/plot.ts')).plotCache(report),
      print: reportCache,
    },
  )
}

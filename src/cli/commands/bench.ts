/** `kvasir bench`: speed, next to what this machine and other programs reach. */
import { Command } from 'commander'
import type { CliContext } from '../context.ts'
import { benchAttentionCommand } from './bench-attention.ts'
import { benchCacheCommand } from './bench-cache.ts'
import { benchGenerateCommand } from './bench-generate.ts'
import { benchLinearCommand } from './bench-linear.ts'
import { benchPrefixCommand } from './bench-prefix.ts'
import { benchStallsCommand } from './bench-stalls.ts'

export function benchCommand(context: CliContext): Command {
  return new Command('bench')
    .description("Measure speed next to the machine's limits and to ONNX Runtime.")
    .addCommand(benchAttentionCommand(context))
    .addCommand(benchCacheCommand(context))
    .addCommand(benchGenerateCommand(context))
    .addCommand(benchLinearCommand(context))
    .addCommand(benchPrefixCommand(context))
    .addCommand(benchStallsCommand(context))
}

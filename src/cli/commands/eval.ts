/** `kvasir eval`: measures what a model remembers and what that costs. */
import { Command } from 'commander'
import type { CliContext } from '../context.ts'
import { evalMemoryCommand } from './eval-memory.ts'
import { evalRecallCommand } from './eval-recall.ts'

export function evalCommand(context: CliContext): Command {
  return new Command('eval')
    .description('Measure what a model remembers of a long document, and the memory that takes.')
    .addCommand(evalRecallCommand(context))
    .addCommand(evalMemoryCommand(context))
}

/** `kvasir eval`: measures what a model remembers and what that costs. */
import { Command } from 'commander'
import type { CliContext } from '../context.ts'
import { evalDtypesCommand } from './eval-dtypes.ts'
import { evalLengthCommand } from './eval-length.ts'
import { evalMemoryCommand } from './eval-memory.ts'
import { evalPoliciesCommand } from './eval-policies.ts'
import { evalRecallCommand } from './eval-recall.ts'

export function evalCommand(context: CliContext): Command {
  return new Command('eval')
    .description('Measure what a model remembers, what that takes, and what is lost when its cache keeps less.')
    .addCommand(evalRecallCommand(context))
    .addCommand(evalMemoryCommand(context))
    .addCommand(evalPoliciesCommand(context))
    .addCommand(evalDtypesCommand(context))
    .addCommand(evalLengthCommand(context))
}

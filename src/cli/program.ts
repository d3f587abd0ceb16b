/** Puts the commands together and turns whatever happens into an exit code. */
import { Command, CommanderError } from 'commander'
import { isKvasirError, reasonOf } from '../tensor/error.ts'
import { commands } from './commands/index.ts'
import type { CliContext } from './context.ts'
import { examples } from './options.ts'
import { packageVersion } from './package-root.ts'

/** Options of a command that are so few need no headings in --help. */
const groupedOptions = 20

export const exitCodes = { done: 0, failed: 1, usage: 2, interrupted: 130 } as const

/** Runs one command line (without `node` and the program) and returns the exit code. */
export async function runCli(args: readonly string[], context: CliContext): Promise<number> {
  try {
    await createProgram(context).parseAsync(args, { from: 'user' })
    return exitCodes.done
  } catch (error) {
    if (error instanceof CommanderError) return error.exitCode === 0 ? exitCodes.done : exitCodes.usage
    if (context.signal.aborted || (isKvasirError(error) && error.code === 'aborted')) {
      context.stderr.write('interrupted\n')
      return exitCodes.interrupted
    }
    context.stderr.write(`error: ${explain(error, context.env)}\n`)
    return isKvasirError(error) && error.code === 'invalid-argument' ? exitCodes.usage : exitCodes.failed
  }
}

function createProgram(context: CliContext): Command {
  const program = new Command('kvasir')
    .description('Language models in TypeScript whose KV cache does not grow.')
    .version(packageVersion())
    .showHelpAfterError('(--help shows the options)')
    .addHelpText('after', examples('kvasir demo', 'kvasir generate "Once upon a time" --max-tokens 40'))
  for (const create of Object.values(commands)) program.addCommand(create(context))
  connect(program, context)
  return program
}

/** Commands made apart don't inherit where to write and how to exit. */
function connect(command: Command, context: CliContext): void {
  const { stdout, stderr } = context
  command.exitOverride().configureOutput({
    writeOut: (text) => stdout.write(text),
    writeErr: (text) => stderr.write(text),
    getOutHelpWidth: () => stdout.columns ?? 100,
    getErrHelpWidth: () => stderr.columns ?? 100,
    getOutHasColors: () => false,
    getErrHasColors: () => false,
  })
  command.showHelpAfterError('(--help shows the options)')
  if (command.options.length < groupedOptions) {
    for (const option of command.options) delete option.helpGroupHeading
  }
  for (const child of command.commands) connect(child, context)
}

/** One line without the layer that refused and without a stack, unless KVASIR_DEBUG asks for them. */
function explain(error: unknown, env: NodeJS.ProcessEnv): string {
  if (!(error instanceof Error)) return String(error)
  if (env.KVASIR_DEBUG) return error.stack ?? error.message
  const text = isKvasirError(error) ? reasonOf(error) : error.message
  return text.replace(/\s*\n\s*/g, ' ')
}

/** `kvasir plan`: what attention and the cache of a model will cost, from its config.json alone. */
import { join } from 'node:path'
import { Command, Option } from 'commander'
import { type CountedKvDtype, countedKvDtypes } from '../../attention/index.ts'
import { checkChoice } from '../../tensor/check.ts'
import type { CliContext } from '../context.ts'
import { formatCount } from '../format.ts'
import { modelName } from '../model.ts'
import { examples, integer, jsonOption } from '../options.ts'
import { bundledModel } from '../package-root.ts'
import { type PlanRequest, plan } from '../plan-figures.ts'
import { byteCount, tokenCount } from '../plan-options.ts'
import { reportPlan } from '../plan-report.ts'
import { readPlanShape } from '../plan-shape.ts'
import { createTerminal } from '../terminal.ts'

interface PlanFlags {
  readonly model?: string
  readonly config?: string
  readonly context: number
  readonly window?: number
  readonly kvDtype: CountedKvDtype
  readonly batch: number
  readonly budget: number
  readonly json?: boolean
}

/** Pairs of queries and keys, the square of this, are still counted exactly. */
const maxContext = 2 ** 26

export function planCommand(context: CliContext): Command {
  return new Command('plan')
    .description('Count the FLOPs of attention and the bytes of the KV cache of a model, from its config.json alone.')
    .addOption(new Option('--model <path>', 'folder with config.json (default: the bundled kvasir-tiny)'))
    .addOption(new Option('--config <path>', "a decoder's config.json by itself").conflicts('model'))
    .addOption(
      new Option('--context <tokens>', 'N: tokens of a sequence, such as 128K')
        .argParser(tokenCount(maxContext))
        .default(131_072),
    )
    .addOption(
      new Option(
        '--window <tokens>',
        'W: tokens kept for each KV head (default: what the model was trained with)',
      ).argParser(tokenCount(maxContext)),
    )
    .addOption(
      new Option('--kv-dtype <type>', `storage of keys and values: ${countedKvDtypes.join(', ')}`)
        .argParser(storageType)
        .default('f32'),
    )
    .addOption(new Option('--batch <number>', 'sequences at once').argParser(integer(1)).default(1))
    .addOption(
      new Option('--budget <bytes>', 'memory for caches, such as 8GiB')
        .argParser(byteCount)
        .default(8 * 2 ** 30, '8GiB'),
    )
    .addOption(jsonOption())
    .addHelpText(
      'after',
      examples(
        'kvasir plan --context 128K --window 2048 --kv-dtype f16',
        'kvasir plan --config path/to/config.json --batch 16 --budget 24GiB --json',
      ),
    )
    .action((flags: PlanFlags) => run(context, flags))
}

/** Not commander's choices: this names the nearest. */
function storageType(text: string): CountedKvDtype {
  checkChoice('cli', '--kv-dtype', text, countedKvDtypes)
  return text
}

async function run(context: CliContext, flags: PlanFlags): Promise<void> {
  const terminal = createTerminal(context, flags.json === true)
  const shape = await readPlanShape(flags.config ?? join(flags.model ?? bundledModel(), 'config.json'))
  const name = flags.config ?? modelName({ model: flags.model })
  const { context: contextTokens, window = shape.trainedWindow, kvDtype, batch, budget: budgetBytes } = flags
  const request: PlanRequest = { contextTokens, window, kvDtype, batch, budgetBytes }
  const figures = plan(shape, request)
  if (flags.window !== undefined && flags.window > contextTokens) {
    terminal.note(
      `note: the window of ${formatCount(flags.window)} tokens is larger than the context of ${formatCount(contextTokens)}: ` +
        'it saves nothing',
    )
  }
  if (terminal.isJson) {
    const { trainedWindow, ...sizes } = shape
    terminal.json({ model: name, shape: sizes, ...request, window: window ?? null, ...figures })
  } else reportPlan({ name, shape, request }, figures, terminal)
}

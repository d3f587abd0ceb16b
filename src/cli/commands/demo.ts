/**
 * `kvasir demo`: one long story, read twice into the same few kilobytes. The linear cache keeps the tokens that the
 * model finds important, the sliding window the newest; then both are asked about the story's beginning.
 */
import { Command, Option } from 'commander'
import { createDocument } from '../../../eval/document.ts'
import type { PolicyName } from '../../cache/contract.ts'
import type { CausalLM } from '../../runtime/contract.ts'
import type { CliContext } from '../context.ts'
import { type Run, runPolicy } from '../demo-run.ts'
import { showStory } from '../demo-story.ts'
import { formatBytes, formatCount } from '../format.ts'
import { type ModelFlags, modelName, withModel } from '../model.ts'
import {
  addOptions,
  examples,
  integer,
  jsonOption,
  loadOptions,
  modelOption,
  seedOption,
  windowOption,
} from '../options.ts'
import { createTerminal, type Terminal } from '../terminal.ts'
import { defaultSeed, defaultWindow } from './eval-flags.ts'

interface DemoFlags extends ModelFlags {
  readonly context: number
  readonly questions: number
  readonly seed: number
  readonly window: number
  readonly json?: boolean
}

/** The policies that are compared, and what each of them keeps. */
const contenders = {
  linear: (window: string) => `Linear cache: each head keeps the ${window} tokens that matter most to it`,
  window: (window: string) => `Sliding window: each head keeps the newest ${window} tokens`,
} as const satisfies Partial<Record<PolicyName, (window: string) => string>>

export function demoCommand(context: CliContext): Command {
  const command = new Command('demo')
    .description('Read a long story in constant memory, answer questions about its beginning, compare with a window.')
    .addOption(modelOption())
    .addOption(new Option('--context <tokens>', 'length of the story').argParser(integer(1)).default(262_144))
    .addOption(new Option('--questions <number>', 'questions at its end').argParser(integer(1, 100)).default(12))
    .addOption(seedOption('seed of the story', defaultSeed))
    .addOption(windowOption(defaultWindow))
  return addOptions(command, loadOptions())
    .addOption(jsonOption())
    .addHelpText('after', examples('kvasir demo', 'kvasir demo --context 65536 --seed 7', 'kvasir demo --json'))
    .action((flags: DemoFlags) => demo(context, flags))
}

async function demo(context: CliContext, flags: DemoFlags): Promise<void> {
  const terminal = createTerminal(context, flags.json === true)
  const { seed, window, questions } = flags
  await withModel(context, { ...flags, policy: 'linear' }, async (model) => {
    introduce(model, flags, terminal)
    const document = createDocument(model.tokenizer, { seed, tokens: flags.context, facts: questions })
    showStory(document, terminal)
    const runs: Run[] = []
    for (const policy of Object.keys(contenders) as (keyof typeof contenders)[]) {
      terminal.print()
      terminal.print(terminal.paint.bold(contenders[policy](formatCount(window))))
      runs.push(await runPolicy(model, document, { policy, window, signal: context.signal }, terminal))
    }
    const contextTokens = document.tokens.length
    if (terminal.isJson) terminal.json({ model: modelName(flags), contextTokens, window, seed, runs })
    else summarise(runs, flags, terminal)
  })
}

function introduce(model: CausalLM, flags: DemoFlags, terminal: Terminal): void {
  const { architecture, parameters, backend } = model.describe()
  const size = `${architecture}, ${formatCount(parameters)} parameters`
  terminal.print(`${modelName(flags)} (${size}), attention on ${backend}`)
  terminal.print()
}

function summarise(runs: readonly Run[], { window }: DemoFlags, terminal: Terminal): void {
  terminal.print()
  terminal.table(
    ['policy', 'tokens read', 'KV cache now', 'full cache would need', 'tokens/s', 'answers right'],
    runs.map((run) => [
      run.policy,
      formatCount(run.tokensRead),
      formatBytes(run.kvBytes),
      formatBytes(run.fullKvBytes),
      formatCount(run.tokensPerSecond),
      `${run.correct} of ${run.questions}`,
    ]),
  )
  const [linear, sliding] = runs
  if (!linear || !sliding) return
  terminal.print()
  terminal.print(
    `With ${formatCount(window)} tokens a head, chosen by importance, ${linear.correct} of ${linear.questions} answers ` +
      `are right; with the newest ${formatCount(window)}, ${sliding.correct}.`,
  )
}

/** `kvasir eval recall`: questions about facts at the beginning of long documents. */
import { Command, Option } from 'commander'
import { evalRecall, type RecallResult } from '../../../eval/recall.ts'
import type { CliContext } from '../context.ts'
import { formatBytes, formatCount, formatPlural, formatSeconds } from '../format.ts'
import { withModel } from '../model.ts'
import { examples, integer, jsonOption, modelOption, seedOption } from '../options.ts'
import { readingTokens, withProgress } from '../progress.ts'
import { createTerminal, type Terminal } from '../terminal.ts'
import { addCacheOptions, defaultSeed, type EvalFlags, withoutIdleWindow } from './eval-flags.ts'

interface RecallFlags extends EvalFlags {
  readonly context: number
  readonly questions: number
  readonly perDocument: number
}

export function evalRecallCommand(context: CliContext): Command {
  const command = new Command('recall')
    .description('Read long documents and answer questions about facts near their beginning.')
    .addOption(modelOption())
    .addOption(new Option('--context <tokens>', 'length of a document').argParser(integer(1)).default(65_536))
    .addOption(new Option('--questions <number>', 'questions in all').argParser(integer(1)).default(100))
    .addOption(new Option('--per-document <number>', 'questions about one document').argParser(integer(1)).default(20))
    .addOption(seedOption('seed of the first document; the next ones count up', defaultSeed))
  return addCacheOptions(command)
    .addOption(jsonOption())
    .addHelpText(
      'after',
      examples(
        'kvasir eval recall',
        'kvasir eval recall --context 262144 --questions 20 --json',
        'kvasir eval recall --policy window --window 256',
      ),
    )
    .action((flags: RecallFlags, self: Command) => recall(context, withoutIdleWindow(flags, self)))
}

async function recall(context: CliContext, flags: RecallFlags): Promise<void> {
  const terminal = createTerminal(context, flags.json === true)
  const result = await withModel(context, flags, async (model) => {
    const total = Math.ceil(flags.questions / flags.perDocument) * flags.context
    return await withProgress(terminal, readingTokens, async (tell) => {
      tell(0, total)
      return await evalRecall(model, {
        contextTokens: flags.context,
        questions: flags.questions,
        questionsPerDocument: flags.perDocument,
        seed: flags.seed,
        signal: context.signal,
        onProgress: ({ tokensRead, correct, questions }) =>
          tell(tokensRead, total, `${formatCount(correct)} of ${formatPlural(questions, 'answer')} right so far`),
      })
    })
  })
  if (terminal.isJson) terminal.json(result)
  else report(result, terminal)
}

function report(result: RecallResult, terminal: Terminal): void {
  const rows = Object.entries(result.byKind).map(([kind, { questions, correct }]) => [
    kind,
    formatCount(questions),
    formatCount(correct),
    share(correct / questions),
  ])
  const total = ['all', formatCount(result.questions), formatCount(result.correct), share(result.recall)]
  terminal.table(['asked about', 'questions', 'right', 'recall'], [...rows, total])
  terminal.print()
  terminal.print(
    `${formatPlural(result.documents, 'document')} of ${formatCount(result.contextTokens)} tokens, ` +
      `policy ${result.policy}${result.window === null ? '' : `, window ${formatCount(result.window)}`}, ` +
      `read at ${formatCount(result.tokensPerSecond)} tokens a second, ${formatSeconds(result.seconds * 1000)} in all`,
  )
  terminal.print(
    `KV cache ${formatBytes(result.kvBytes)}; a cache of all tokens would hold ${formatBytes(result.fullKvBytes)}`,
  )
  for (const { question, expected, said } of result.misses) {
    terminal.note(`wrong: ${question} expected "${expected}", got "${said}"`)
  }
}

function share(value: number): string {
  return value.toFixed(3)
}

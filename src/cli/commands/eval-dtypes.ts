/** `kvasir eval dtypes`: what rounding keys and values costs, by storage type. */
import { Command, Option } from 'commander'
import { type DtypeEvalResult, evalDtypes } from '../../../eval/dtypes.ts'
import type { PolicyChoice } from '../../cache/contract.ts'
import type { CliContext } from '../context.ts'
import { formatBytes, formatCount, formatPlural } from '../format.ts'
import { withModel } from '../model.ts'
import { examples, jsonOption, policyOption, windowOption, words } from '../options.ts'
import { readingTokens, withProgress } from '../progress.ts'
import { createTerminal, type Terminal } from '../terminal.ts'
import { addPassageOptions, type PassageFlags, readRunningPassages } from './eval-passages.ts'

interface DtypeFlags extends PassageFlags {
  readonly types?: string[]
}

export function evalDtypesCommand(context: CliContext): Command {
  const command = new Command('dtypes')
    .description('Compare storage types of keys and values with f16, by answers and next-token logits.')
    .addOption(new Option('--types <types...>', 'which; K and V apart as int8/int4 (default: all)').argParser(words))
    .addOption(policyOption())
    .addOption(windowOption())
  return addPassageOptions(command)
    .addOption(jsonOption())
    .addHelpText(
      'after',
      examples(
        'kvasir eval dtypes',
        'kvasir eval dtypes --model ./my-model --text book.txt --types int8,int8/int4 --json',
      ),
    )
    .action((flags: DtypeFlags) => dtypes(context, flags))
}

async function dtypes(context: CliContext, flags: DtypeFlags): Promise<void> {
  const terminal = createTerminal(context, flags.json === true)
  const { types, policy, window, ...load } = flags
  const result = await withModel(context, load, async (model) => {
    const passages = await readRunningPassages(model, flags)
    const chosen = { passages, types, policy: policy as PolicyChoice | undefined, window, signal: context.signal }
    return await withProgress(terminal, readingTokens, (onProgress) => evalDtypes(model, { ...chosen, onProgress }))
  })
  if (terminal.isJson) terminal.json(result)
  else report(result, terminal)
}

function report({ rows, reference, contextTokens, texts, referenceBytes }: DtypeEvalResult, terminal: Terminal): void {
  terminal.table(
    ['K/V', 'same likeliest token', 'mean KL', 'answers right', 'KV cache'],
    rows.map(({ type, topAgreement, meanKl, questions, correct, kvBytes }) => [
      type,
      `${(100 * topAgreement).toFixed(2)}%`,
      meanKl.toExponential(2),
      questions === 0 ? '' : `${correct} of ${questions}`,
      formatBytes(kvBytes),
    ]),
  )
  terminal.print()
  terminal.print(
    `Beside ${reference} (${formatBytes(referenceBytes)}): ${formatPlural(rows[0]?.positions ?? 0, 'next token')} after ` +
      `${formatPlural(texts, 'text')} of up to ${formatCount(contextTokens)} tokens; KL in nats.`,
  )
}

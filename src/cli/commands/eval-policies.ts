/** `kvasir eval policies`: what is left of a model when a part of its KV cache is removed, by policy. */
import { Command, Option } from 'commander'
import { defaultShares, evalPolicies } from '../../../eval/policies.ts'
import type { CliContext } from '../context.ts'
import { formatCount } from '../format.ts'
import { withModel } from '../model.ts'
import { examples, fractions, integer, jsonOption, words } from '../options.ts'
import { checkWritable, writePlot } from '../output-file.ts'
import { readingTokens, withProgress } from '../progress.ts'
import { createTerminal } from '../terminal.ts'
import { addPassageOptions, type PassageFlags, readPassages } from './eval-passages.ts'
import { reportPolicies } from './eval-policies-report.ts'

interface PolicyFlags extends PassageFlags {
  readonly policies?: string[]
  readonly shares?: number[]
  readonly plot?: string
}

export function evalPoliciesCommand(context: CliContext): Command {
  const command = new Command('policies')
    .description('Compare policies: answers and next-token logits after a part of the KV cache has been removed.')
    .addOption(
      new Option('--policies <names...>', 'which, linear:value-norm by another importance (default: all)').argParser(
        words,
      ),
    )
    .addOption(
      new Option('--shares <shares...>', `of KV removed (default: ${defaultShares.join(', ')})`).argParser(fractions),
    )
    .addOption(new Option('--sinks <tokens>', 'first tokens that always stay, for all').argParser(integer(0)))
    .addOption(new Option('--recent <tokens>', 'last tokens that always stay, for all').argParser(integer(0)))
    .addOption(new Option('--plot <file>', 'draw recall and error over shares, SVG'))
  return addPassageOptions(command)
    .addOption(jsonOption())
    .addHelpText(
      'after',
      examples(
        'kvasir eval policies',
        'kvasir eval policies --policies linear:model,snapkv,window --shares 0.5,0.9 --questions 20',
        'kvasir eval policies --model ./my-model --text book.txt --plot policies.svg --json',
      ),
    )
    .action((flags: PolicyFlags) => policies(context, flags))
}

async function policies(context: CliContext, flags: PolicyFlags): Promise<void> {
  const terminal = createTerminal(context, flags.json === true)
  // These are of the policies that are compared, and of no cache besides.
  const { sinks, recent, policies: names, shares, plot, ...load } = flags
  await checkWritable('--plot', plot)
  const result = await withModel(context, load, async (model) => {
    const passages = await readPassages(model, flags)
    const chosen = { passages, policies: names, shares, sinks, recent, signal: context.signal }
    return await withProgress(terminal, readingTokens, (onProgress) => evalPolicies(model, { ...chosen, onProgress }))
  })
  if (terminal.isJson) terminal.json(result)
  else reportPolicies(result, terminal)
  if (!terminal.isJson) terminal.note(`${formatCount(result.seconds)} s`)
  if (plot === undefined) return
  const { plotPolicies } = await import('./eval-policies-plot.ts')
  await writePlot(terminal, plot, await plotPolicies(result))
}

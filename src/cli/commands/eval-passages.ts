/** What `eval policies` and `eval dtypes` read: a text of the user, or generated stories with questions. */
import { type Command, Option } from 'commander'
import { type Passage, storyPassages, textPassages } from '../../../eval/passages.ts'
import type { CausalLM } from '../../runtime/contract.ts'
import { integer, modelOption, seedOption } from '../options.ts'
import { readTextFile } from '../text-file.ts'
import { addModelOptions, defaultSeed, type EvalFlags } from './eval-flags.ts'

export interface PassageFlags extends EvalFlags {
  readonly text?: string
  readonly context: number
  readonly questions: number
  readonly perDocument: number
  readonly predict: number
  readonly passages: number
}

export function addPassageOptions(command: Command): Command {
  command
    .addOption(modelOption())
    .addOption(new Option('--text <path>', 'a text to read (default: generated stories, then questions about them)'))
    .addOption(new Option('--context <tokens>', 'read before comparing').argParser(integer(32)).default(2048))
    .addOption(new Option('--questions <number>', 'questions in all').argParser(integer(1)).default(40))
    .addOption(new Option('--per-document <number>', 'questions about one story').argParser(integer(1)).default(10))
    .addOption(new Option('--predict <tokens>', 'of a text, compared after reading').argParser(integer(1)).default(256))
    .addOption(new Option('--passages <number>', 'most parts of a text').argParser(integer(1)).default(4))
    .addOption(seedOption('seed of the first story; the next ones count up', defaultSeed))
  return addModelOptions(command)
}

export async function readPassages({ tokenizer }: CausalLM, flags: PassageFlags): Promise<Passage[]> {
  const { text, context: contextTokens, questions, perDocument: questionsPerDocument, seed } = flags
  if (text === undefined) return [...storyPassages(tokenizer, { contextTokens, questions, questionsPerDocument, seed })]
  const tokens = tokenizer.encode(await readTextFile('the text', text))
  return textPassages(tokens, { contextTokens, predictTokens: flags.predict, passages: flags.passages })
}

/** The same, and where that is stories, also how stories themselves go on: most of what a model writes is no answer. */
export async function readRunningPassages(model: CausalLM, flags: PassageFlags): Promise<Passage[]> {
  const passages = await readPassages(model, flags)
  if (flags.text !== undefined) return passages
  const { predict: predictTokens } = flags
  return passages.flatMap((passage) => [
    passage,
    ...textPassages([...passage.context], { contextTokens: passage.context.length, predictTokens, passages: 1 }),
  ])
}

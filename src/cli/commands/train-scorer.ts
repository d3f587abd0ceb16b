/** `kvasir train-scorer`: learns from a text which tokens a model will look at again, and writes that beside the model. */
import { lstat, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { Command, Option } from 'commander'
import { defaultShares } from '../../../eval/policies.ts'
import { scoreMicroseconds } from '../../../eval/scorer/speed.ts'
import { readTexts, type Texts } from '../../../eval/scorer/texts.ts'
import { type Trained, trainScorer } from '../../../eval/scorer/train.ts'
import { openKernels } from '../../kernels/index.ts'
import { createScorer } from '../../policies/scorer/scorer.ts'
import type { CausalLM } from '../../runtime/contract.ts'
import { scorerFileName, writeScorer } from '../../runtime/scorer-file.ts'
import { invalidArgument } from '../../tensor/error.ts'
import type { CliContext } from '../context.ts'
import { modelName, withModel } from '../model.ts'
import { examples, integer, jsonOption, modelOption, number, seedOption } from '../options.ts'
import { checkWritable } from '../output-file.ts'
import { bundledModel } from '../package-root.ts'
import { readingTokens, withProgress } from '../progress.ts'
import { createTerminal, type Terminal } from '../terminal.ts'
import { readTextFile } from '../text-file.ts'
import { addModelOptions, type EvalFlags } from './eval-flags.ts'
import { reportScorer } from './train-scorer-report.ts'

interface ScorerFlags extends EvalFlags {
  readonly text?: string
  readonly out?: string
  readonly hidden: number
  readonly context: number
  readonly predict: number
  readonly passages: number
  readonly heldOut: number
}

/** Stories that no evaluation begins with. */
const firstSeed = 50_000

export function trainScorerCommand(context: CliContext): Command {
  const command = new Command('train-scorer')
    .description('Learn from a text which tokens a model will look at again, for --importance learned.')
    .addOption(modelOption())
    .addOption(new Option('--text <path>', 'what to learn from (default: generated stories, for kvasir-tiny)'))
    .addOption(
      new Option(
        '--out <path>',
        `file to write (default: ${scorerFileName} in the folder of the model, where none is yet)`,
      ),
    )
    .addOption(new Option('--hidden <units>', 'of a hidden layer; 0: linear').argParser(integer(0, 1024)).default(0))
    .addOption(new Option('--context <tokens>', 'read at once').argParser(integer(64)).default(2048))
    .addOption(new Option('--predict <tokens>', 'of a text, read after them').argParser(integer(32)).default(512))
    .addOption(new Option('--passages <number>', 'most parts of a text, or stories').argParser(integer(2)).default(20))
    .addOption(
      new Option('--held-out <share>', 'not learned from, to judge by').argParser(number(0, 0.9, true)).default(0.2),
    )
    .addOption(seedOption('seed of the first story and of a hidden layer', firstSeed))
  return addModelOptions(command)
    .addOption(jsonOption())
    .addHelpText(
      'after',
      examples(
        'kvasir train-scorer --model ./my-model --text book.txt',
        'kvasir train-scorer --model ./my-model --text book.txt --hidden 16 --out hidden.safetensors --json',
        'kvasir generate --model ./my-model --policy linear --importance learned --window 512 --prompt-file long.txt',
      ),
    )
    .action((flags: ScorerFlags) => train(context, flags))
}

async function train(context: CliContext, flags: ScorerFlags): Promise<void> {
  const terminal = createTerminal(context, flags.json === true)
  const started = performance.now()
  const file = flags.out ?? (await besideModel(flags))
  await checkWritable('--out', file)
  const result = await withModel(context, flags, async (model) => {
    const text = flags.text === undefined ? undefined : await readTextFile('the text', flags.text)
    const texts = readTexts(model.tokenizer, text, {
      ...{ contextTokens: flags.context, predictTokens: flags.predict, passages: flags.passages },
      ...{ heldOut: flags.heldOut, seed: flags.seed },
    })
    const trained = await fitTo(context, terminal, model, texts, flags)
    await writeScorer(file, trained, { shape: model.shape, identity: model.describe().weights })
    const { layers, ...rest } = trained
    const speed = scoreMicroseconds(createScorer(layers, model.shape), model.shape)
    return {
      texts: { training: texts.training.length, heldOut: texts.heldOut.length },
      ...rest,
      scoreMicroseconds: speed,
    }
  })
  const { hidden } = flags
  const report = { model: modelName(flags), file, hidden, ...result, seconds: (performance.now() - started) / 1000 }
  if (terminal.isJson) terminal.json(report)
  else reportScorer(report, terminal)
}

async function fitTo(
  { signal }: CliContext,
  terminal: Terminal,
  model: CausalLM,
  texts: Texts,
  { hidden, seed, backend, threads }: ScorerFlags,
): Promise<Trained> {
  const kernels = openKernels({ ...(backend && { backend }), ...(threads && { threads }) })
  const chosen = { ...texts, hidden, seed, shares: defaultShares, signal }
  return await withProgress(terminal, readingTokens, (onProgress) =>
    trainScorer(model, kernels, { ...chosen, onProgress }),
  )
}

/** @throws KvasirError `invalid-argument` for a model that is no folder here, or that has a scorer already */
async function besideModel({ model = bundledModel() }: ScorerFlags): Promise<string> {
  const info = await stat(model).catch(() => undefined)
  if (!info?.isDirectory()) {
    throw invalidArgument('cli', `expected --out for a model that is no folder here, got --model ${model}`)
  }
  const file = join(model, scorerFileName)
  const isTaken = await lstat(file).then(
    () => true,
    () => false,
  )
  if (!isTaken) return file
  throw invalidArgument('cli', `expected --out, since there is a scorer beside the model: ${file} (--out may name it)`)
}

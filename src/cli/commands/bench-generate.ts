/** `kvasir bench generate`: whole models of random weights, ours beside the uncut graph in ONNX Runtime. */
import { Command, Option } from 'commander'
import { choices } from '../../../bench/generate/contract.ts'
import type { GenerateBenchOptions } from '../../../bench/generate/plan.ts'
import type { CliContext } from '../context.ts'
import { examples, integer, integers, names } from '../options.ts'
import { reportGenerate } from './bench-generate-report.ts'
import { type RoundFlags, runBench, withRounds } from './bench-run.ts'

type Chosen = Pick<GenerateBenchOptions, 'weights' | 'candidates' | 'tasks' | 'contexts' | 'window'>

interface GenerateBenchFlags extends RoundFlags, Chosen {
  readonly shape?: GenerateBenchOptions['shapes']
  readonly peers?: boolean
}

export function benchGenerateCommand(context: CliContext): Command {
  const command = new Command('generate')
    .description(
      "Time whole models of random weights beside ONNX Runtime's run of the uncut graph, from the same file.",
    )
    .addOption(new Option('--shape <names...>', 'whose layers, heads and widths').argParser(names(choices.shape)))
    .addOption(new Option('--weights <types...>', 'storage of the weights').argParser(names(choices.weights)))
    .addOption(new Option('--candidates <names...>', 'who takes part').argParser(names(choices.candidate)))
    .addOption(new Option('--peers', 'install node-llama-cpp in the cache folder first (85 MB)'))
    .addOption(new Option('--tasks <names...>', 'what is timed').argParser(names(choices.task)))
    .addOption(new Option('--contexts <tokens...>', 'what a decode step looks back on').argParser(integers(1)))
    .addOption(new Option('--window <tokens>', 'W of ours with a window (default: 2048)').argParser(integer(1)))
  const text = {
    repeat: 'rounds in which all take turns',
    quick: 'a small model and short contexts: to see that all works',
    plot: 'draw times over contexts, SVG',
  }
  return withRounds(command, text)
    .addHelpText(
      'after',
      examples(
        'kvasir bench generate --quick',
        'kvasir bench generate --peers --shape smollm2-135m --weights int4 --contexts 1024,8192 --plot generate.svg',
        'kvasir bench generate --weights int4 --tasks decode --candidates kvasir,onnxruntime',
      ),
    )
    .action((flags: GenerateBenchFlags) => generate(context, flags))
}

async function generate(context: CliContext, flags: GenerateBenchFlags): Promise<void> {
  const { shape, quick, peers, plot, json, ...rest } = flags
  const { benchGenerate } = await import('../../../bench/generate/run.ts')
  await runBench(
    context,
    { json, plot },
    {
      measure: (running) => {
        return benchGenerate({ ...rest, shapes: shape, isQuick: quick, installsPeers: peers, ...running })
      },
      draw: async (report) => (await import('../../../bench/generate/plot.ts')).plotGenerate(report),
      print: reportGenerate,
    },
  )
}

/** `kvasir bench generate`: whole models of random weights, ours beside the uncut graph in ONNX Runtime. */
import { Command, Option } from 'commander'
import {
  type CandidateName,
  candidateNames,
  type GenerateTask,
  type ShapeName,
  shapeNames,
  taskKinds,
  type WeightType,
  weightTypes,
} from '../../../bench/generate/contract.ts'
import type { CliContext } from '../context.ts'
import { examples, integer, integers, jsonOption, names, threadsOption } from '../options.ts'
import { reportGenerate } from './bench-generate-report.ts'
import { runBench } from './bench-run.ts'

interface GenerateBenchFlags {
  readonly shape?: ShapeName[]
  readonly weights?: WeightType[]
  readonly candidates?: CandidateName[]
  readonly tasks?: GenerateTask['kind'][]
  readonly peers?: boolean
  readonly contexts?: number[]
  readonly window?: number
  readonly threads?: number
  readonly repeat?: number
  readonly quick?: boolean
  readonly plot?: string
  readonly json?: boolean
}

export function benchGenerateCommand(context: CliContext): Command {
  return new Command('generate')
    .description(
      "Time whole models of random weights beside ONNX Runtime's run of the uncut graph, from the same file.",
    )
    .addOption(new Option('--shape <names...>', 'whose layers, heads and widths').argParser(names(shapeNames)))
    .addOption(new Option('--weights <types...>', 'storage of the weights').argParser(names(weightTypes)))
    .addOption(new Option('--candidates <names...>', 'who takes part').argParser(names(candidateNames)))
    .addOption(new Option('--peers', 'install node-llama-cpp in the cache folder first (85 MB)'))
    .addOption(new Option('--tasks <names...>', 'what is timed').argParser(names(taskKinds)))
    .addOption(new Option('--contexts <tokens...>', 'what a decode step looks back on').argParser(integers(1)))
    .addOption(new Option('--window <tokens>', 'W of ours with a window (default: 2048)').argParser(integer(1)))
    .addOption(threadsOption())
    .addOption(new Option('--repeat <rounds>', 'rounds in which all take turns').argParser(integer(1)))
    .addOption(new Option('--quick', 'a small model and short contexts: to see that all works'))
    .addOption(new Option('--plot <file>', 'draw times over contexts, SVG'))
    .addOption(jsonOption())
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

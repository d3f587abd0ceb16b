/** `kvasir convert`: a checkpoint as an ordinary ONNX folder. */
import { Command, Option } from 'commander'
import { type ExportDtype, exportDtypes, exportOnnx } from '../../onnx/index.ts'
import type { CliContext } from '../context.ts'
import { formatBytes } from '../format.ts'
import { examples, jsonOption } from '../options.ts'
import { withProgress } from '../progress.ts'
import { createTerminal } from '../terminal.ts'

interface ConvertFlags {
  readonly model: string
  readonly output: string
  readonly dtype: ExportDtype
  readonly json?: boolean
}

export function convertCommand(context: CliContext): Command {
  return new Command('convert')
    .description('Write a checkpoint as an ordinary ONNX folder that onnxruntime and transformers.js run.')
    .requiredOption('--model <path>', 'folder with config.json, tokenizer.json and safetensors')
    .requiredOption('--output <path>', 'folder to write, which must not exist')
    .addOption(new Option('--dtype <type>', 'storage of the weights').choices(Object.keys(exportDtypes)).default('f32'))
    .addOption(jsonOption())
    .addHelpText(
      'after',
      examples(
        'kvasir convert --model path/to/model --output path/to/model-onnx',
        'kvasir convert --model path/to/model --output path/to/model-q4 --dtype int4 --json',
      ),
    )
    .action((flags: ConvertFlags) => run(context, flags))
}

async function run(context: CliContext, { model, output, dtype, json }: ConvertFlags): Promise<void> {
  const terminal = createTerminal(context, json === true)
  const started = performance.now()
  const { files } = await withProgress(terminal, { title: 'Writing', unit: 'bytes' }, (onProgress) =>
    exportOnnx(model, output, { dtype, signal: context.signal, onProgress }),
  )
  const bytes = files.reduce((sum, file) => sum + file.bytes, 0)
  const seconds = (performance.now() - started) / 1000
  if (terminal.isJson) terminal.json({ model, output, dtype, files, bytes, seconds })
  terminal.table(
    [output, ''],
    files.map(({ path, bytes: size }) => [path, formatBytes(size)]),
  )
}

/** Which files of a repository a model needs. */
import { architectureNames, chooseDecoder, findDecoders, type OnnxDtype } from '../../onnx/index.ts'
import { KvasirError } from '../../tensor/error.ts'

/** What decides between variants of weights. */
export interface FileChoice {
  /** A variant of the ONNX files. */
  readonly dtype?: OnnxDtype | undefined
  /** Weights are quantized here, from safetensors. */
  readonly quantize?: string | undefined
  /** config.json */
  readonly config: Readonly<Record<string, unknown>>
}

const wanted = [
  'config.json',
  'generation_config.json',
  'tokenizer.json',
  'tokenizer_config.json',
  'special_tokens_map.json',
  'chat_template.jinja',
  'chat_template.json',
]
const needed = ['config.json', 'tokenizer.json']

/**
 * Settings and tokenizer, and one form of the weights: the ONNX variant of `dtype` where that is given; else safetensors
 * of an architecture whose graph Kvasir builds; else ONNX, in the variant that config.json recommends or the first
 * that is there.
 * @throws KvasirError `not-found` naming what is missing and what there is
 */
export function chooseFiles(repository: string, paths: readonly string[], choice: FileChoice): string[] {
  for (const name of needed) {
    if (!paths.includes(name)) throw missing(repository, name, paths)
  }
  const texts = paths.filter((path) => wanted.includes(path) || /^additional_chat_templates\/[^/]+\.jinja$/.test(path))
  return [...texts, ...chooseWeights(repository, paths, choice)]
}

function chooseWeights(repository: string, paths: readonly string[], choice: FileChoice): readonly string[] {
  const { dtype, quantize, config } = choice
  const safetensors = paths.filter((path) => /^model(-\d+-of-\d+)?\.safetensors(\.index\.json)?$/.test(path))
  const isBuilt = architectureNames.some((name) => name === config.model_type)
  if (dtype === undefined && safetensors.length > 0 && (quantize !== undefined || isBuilt)) return safetensors
  const onnx = chooseOnnx(paths, dtype, config)
  if (onnx) return onnx
  if (dtype === undefined && safetensors.length > 0) return safetensors
  const variants = [...new Set(findDecoders(paths).map((decoder) => decoder.dtype))]
  if (dtype !== undefined && variants.length > 0) {
    const message = `expected ONNX weights of dtype "${dtype}" in ${repository}, got ${variants.join(', ')}`
    throw new KvasirError('not-found', 'hub', message)
  }
  throw missing(repository, dtype === undefined ? 'model.safetensors or onnx/model.onnx' : 'onnx/model.onnx', paths)
}

/** A graph and the files of weights beside it. */
function chooseOnnx(paths: readonly string[], dtype: OnnxDtype | undefined, config: FileChoice['config']) {
  const file = chooseDecoder(findDecoders(paths), dtype, config)?.path
  return file && paths.filter((path) => path === file || path.startsWith(`${file}_data`) || path === `${file}.data`)
}

function missing(repository: string, what: string, paths: readonly string[]): KvasirError {
  const some = paths.slice(0, 8).join(', ') || 'nothing'
  const more = paths.length > 8 ? ` and ${paths.length - 8} more` : ''
  return new KvasirError('not-found', 'hub', `expected ${what} in ${repository}, got ${some}${more}`)
}

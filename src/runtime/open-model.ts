/** `loadModel` as the package exports it: chooses the thread of the model. */
import { describe } from '../tensor/check.ts'
import { invalidArgument } from '../tensor/error.ts'
import type { CausalLM, LoadOptions } from './contract.ts'
import { loadModel as loadHere } from './load-model.ts'
import { openInWorker } from './worker/open.ts'

/**
 * Loads a model folder: config.json, tokenizer.json, model.safetensors or its shards. Weights stay in their files and
 * are read by ONNX Runtime as it needs them. The model works in a thread of its own, unless `worker: false`; an idle
 * one does not keep the process from ending.
 * @throws KvasirError `not-found` for a missing folder or file, `invalid-file` for a broken one, `unsupported` for
 * models that Kvasir does not compute, `invalid-argument` naming an option
 */
export async function loadModel(path: string, options: LoadOptions = {}): Promise<CausalLM> {
  const { worker = true, ...rest } = options
  if (typeof worker !== 'boolean')
    throw invalidArgument('runtime', `expected true or false for worker, got ${describe(worker)}`)
  return worker ? await openInWorker(path, rest) : await loadHere(path, rest)
}

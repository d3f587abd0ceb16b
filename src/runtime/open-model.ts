/** `loadModel` as the package exports it: finds the folder of a model, downloads it first, chooses its thread. */
import { stat } from 'node:fs/promises'
import { describe } from '../tensor/check.ts'
import { invalidArgument, isKvasirError, KvasirError, reasonOf } from '../tensor/error.ts'
import type { CausalLM, LoadOptions } from './contract.ts'
import { downloadModel, isModelId } from './hub/download-model.ts'
import { loadModel as loadHere } from './load-model.ts'
import { openInWorker } from './worker/open.ts'

/**
 * Loads a model: a folder with config.json, tokenizer.json and weights, or a model of the Hugging Face hub by its id
 * (`org/name`), whose files are downloaded once into the cache that the Hugging Face tools share. A folder of that name
 * goes first. Weights stay in their files and are read by ONNX Runtime as it needs them. The model works in a thread of
 * its own, unless `worker: false`; an idle one does not keep the process from ending.
 * @throws KvasirError `not-found` for a missing folder, model or file, `denied` and `unreachable` by the hub,
 * `invalid-file` for a broken file, `unsupported` for models that Kvasir does not compute, `invalid-argument` naming an
 * option
 */
export async function loadModel(idOrPath: string, options: LoadOptions = {}): Promise<CausalLM> {
  const { worker = true, revision, onDownload, signal, ...rest } = options
  if (typeof worker !== 'boolean') {
    throw invalidArgument('runtime', `expected true or false for worker, got ${describe(worker)}`)
  }
  const { dtype, quantize } = rest
  const path = await findModel(idOrPath, { revision, onDownload, signal, dtype, quantize })
  return worker ? await openInWorker(path, rest) : await loadHere(path, rest)
}

async function findModel(idOrPath: string, options: Parameters<typeof downloadModel>[1]): Promise<string> {
  if (typeof idOrPath !== 'string' || !isModelId(idOrPath)) return idOrPath
  if (await stat(idOrPath).catch(() => undefined)) return idOrPath
  return await downloadModel(idOrPath, options).catch((error: unknown) => {
    if (!isKvasirError(error) || !['not-found', 'denied', 'unreachable'].includes(error.code)) throw error
    const message = `${reasonOf(error)} (nor is there a folder ${idOrPath} here)`
    throw new KvasirError(error.code, error.area, message, { cause: error })
  })
}

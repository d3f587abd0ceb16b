/** Starts the thread of a model, from the compiled package as well as from the sources. */
import { createRequire } from 'node:module'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import { Worker } from 'node:worker_threads'
import { invalidArgument, KvasirError } from '../../tensor/error.ts'
import type { CausalLM, LoadOptions, TextTokenizer } from '../contract.ts'
import { readOptionalJson } from '../json-file.ts'
import { openTokenizer } from '../tokenizer.ts'
import { fromErrorData } from './error-data.ts'
import type { FromModel, ModelFacts, Port } from './protocol.ts'
import { RemoteModel } from './remote-model.ts'

/**
 * Loads the model of a folder in a thread of its own. The thread holds the process only while a call waits.
 * @throws what `loadModel` throws in this thread; KvasirError `internal` when the thread ends before the model is there
 */
export async function openInWorker(path: string, options: LoadOptions, start = startThread): Promise<CausalLM> {
  const worker = tryStart(() => start({ path, options }))
  const ended = new Promise<never>((_, reject) => {
    worker.once('error', (cause) => reject(ending(`failed: ${cause instanceof Error ? cause.message : cause}`, cause)))
    worker.once('exit', (code) => reject(ending(`ended with exit code ${code}`)))
  })
  ended.catch(() => undefined)
  const opening = openTextSide(path)
  opening.catch(() => undefined) // the thread fails with the same error, or with an earlier one
  const facts = await Promise.race([firstMessage(worker), ended]).finally(() => worker.unref())
  const tokenizer = await opening.catch(async (error: unknown) => {
    await worker.terminate() // a model that nobody can reach
    throw error
  })
  const hold = { ref: () => worker.ref(), unref: () => worker.unref() }
  const model = new RemoteModel({ port: worker as Port, hold, facts, tokenizer, ended })
  hold.unref() // whoever listens to a thread holds the process again
  return model
}

function tryStart(start: () => Worker): Worker {
  try {
    return start()
  } catch (cause) {
    const message = `expected options that are data, which can cross to a thread (or worker: false): ${String(cause)}`
    throw invalidArgument('runtime', message)
  }
}

/** Texts become tokens in this thread too, without a wait. */
async function openTextSide(path: string): Promise<TextTokenizer> {
  return await openTokenizer(path, (await readOptionalJson(join(path, 'config.json'))) ?? {})
}

function firstMessage(worker: Worker): Promise<ModelFacts> {
  return new Promise((resolve, reject) => {
    worker.once('message', (message: FromModel) => {
      if (message.type === 'ready') resolve(message.facts)
      else if (message.type === 'failed') reject(fromErrorData(message.error))
    })
  })
}

function ending(how: string, cause?: unknown): KvasirError {
  return new KvasirError('internal', 'runtime', `the thread of the model ${how}; load the model again`, { cause })
}

/** TypeScript needs a loader, which a thread does not take over from the process in Node 20. */
export function startThread(data: { readonly path: string; readonly options: LoadOptions }): Worker {
  const isSource = import.meta.url.endsWith('.ts')
  const entry = new URL(isSource ? './entry.ts' : './entry.js', import.meta.url)
  // Without the flags of the process: some (--input-type) only fit its own script. NODE_OPTIONS holds for threads too.
  if (!isSource) return new Worker(entry, { execArgv: [], workerData: data })
  const tsx = pathToFileURL(createRequire(import.meta.url).resolve('tsx/package.json'))
  const loader = new URL('dist/esm/api/index.mjs', tsx).href
  const start = `import('${loader}').then(({ register }) => { register(); return import('${entry.href}') })`
  return new Worker(start, { eval: true, execArgv: [], workerData: data })
}

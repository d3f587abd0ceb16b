/** The first file of a model's thread. */
import { parentPort, workerData } from 'node:worker_threads'
import type { LoadOptions } from '../contract.ts'
import { loadModel } from '../load-model.ts'
import { toErrorData } from './error-data.ts'
import { ModelHost } from './model-host.ts'

const port = parentPort!
const { path, options } = workerData as { readonly path: string; readonly options: LoadOptions }
try {
  new ModelHost(await loadModel(path, options), port, () => port.close())
} catch (error) {
  port.postMessage({ type: 'failed', error: toErrorData(error) })
  port.close()
}

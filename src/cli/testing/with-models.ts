/** Runs command lines with real models, in this process. */
import { loadModel } from '../../runtime/index.ts'
import { type Ran, runCaptured } from './captured.ts'

/** @param line without `kvasir`; words between single spaces */
export async function kvasir(line: string): Promise<Ran> {
  return await runCaptured(line.split(' '), {
    loadModel: (path, options) => loadModel(path, { worker: false, threads: 1, ...options }),
  })
}

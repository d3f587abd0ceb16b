/** Runs command lines with real models, in this process. */
import { loadModel } from '../../runtime/index.ts'
import { runCli } from '../program.ts'

export interface Ran {
  readonly code: number
  readonly stdout: string
  readonly stderr: string
}

/** @param line without `kvasir`; words between single spaces */
export async function kvasir(line: string): Promise<Ran> {
  const written = { stdout: '', stderr: '' }
  const stream = (name: keyof typeof written) => ({
    columns: 100,
    write(text: string) {
      written[name] += text
      return true
    },
  })
  const code = await runCli(line.split(' '), {
    ...{ stdin: (async function* () {})(), stdout: stream('stdout'), stderr: stream('stderr'), env: {} },
    signal: new AbortController().signal,
    loadModel: (path, options) => loadModel(path, { worker: false, threads: 1, ...options }),
  })
  return { code, ...written }
}

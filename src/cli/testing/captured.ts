/** Runs command lines in this process and keeps what they write. */
import type { CliContext } from '../context.ts'
import { runCli } from '../program.ts'

export interface Ran {
  readonly code: number
  readonly stdout: string
  readonly stderr: string
}

/** Nothing stands on standard input, nothing in the environment; a model is loaded only where the test says how. */
export async function runCaptured(words: readonly string[], given: Partial<CliContext> = {}): Promise<Ran> {
  const written = { stdout: '', stderr: '' }
  const stream = (name: keyof typeof written) => ({
    columns: 200,
    write(text: string) {
      written[name] += text
      return true
    },
  })
  const code = await runCli(words, {
    ...{ stdin: (async function* () {})(), stdout: stream('stdout'), stderr: stream('stderr'), env: {} },
    signal: new AbortController().signal,
    loadModel: () => Promise.reject(new Error('this test loads no model')),
    ...given,
  })
  return { code, ...written }
}

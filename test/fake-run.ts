/** Runs a command line in this process against the fake model, and keeps what was written and what was loaded. */

import type { CliContext } from '../src/cli/context.ts'
import { runCli } from '../src/cli/program.ts'
import type { LoadOptions } from '../src/runtime/contract.ts'
import { createFakeModel, type Respond } from './fake-model.ts'

interface Given {
  readonly stdin?: string
  readonly isTerminal?: boolean
  readonly env?: NodeJS.ProcessEnv
  readonly signal?: AbortSignal
  readonly respond?: Respond
  readonly failure?: Error
}

/** A stream that remembers what was written to it. */
function collect(isTTY = false) {
  const parts: string[] = []
  return { isTTY, columns: 100, write: (text: string) => parts.push(text) > 0, text: () => parts.join('') }
}

/** Runs a command line against the fake model. */
export async function kvasir(args: readonly string[], given: Given = {}) {
  const stdout = collect(given.isTerminal)
  const stderr = collect()
  const loaded: { path: string; options: LoadOptions }[] = []
  const input = (async function* () {
    yield given.stdin ?? ''
  })()
  const context: CliContext = {
    stdin: Object.assign(input, { isTTY: given.stdin === undefined }),
    stdout,
    stderr,
    env: given.env ?? {},
    signal: given.signal ?? new AbortController().signal,
    loadModel: async (path, options) => {
      if (given.failure) throw given.failure
      loaded.push({ path, options })
      return createFakeModel(given.respond ?? (() => ' And then.'), options)
    },
  }
  const code = await runCli(args, context)
  return { code, stdout: stdout.text(), stderr: stderr.text(), loaded }
}

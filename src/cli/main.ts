#!/usr/bin/env node
/** The program `kvasir`: connects the command line to this process. */
import { whyNotNative } from '../kernels/index.ts'
import { runCli } from './program.ts'

const interrupt = new AbortController()
for (const signal of ['SIGINT', 'SIGTERM'] as const) {
  // Once: a second Ctrl-C ends the process the usual way, since no handler is left.
  process.once(signal, () => {
    interrupt.abort()
    process.stdin.destroy() // a prompt that is still being read would not notice
  })
}

for (const stream of [process.stdout, process.stderr]) {
  stream.on('error', (error: NodeJS.ErrnoException) => {
    // Whoever read our output (head, less) has seen enough.
    if (error.code === 'EPIPE') process.exit(0)
    throw error
  })
}

process.exitCode = await runCli(process.argv.slice(2), {
  stdin: process.stdin,
  stdout: process.stdout,
  stderr: process.stderr,
  env: process.env,
  signal: interrupt.signal,
  loadModel: async (path, options) => {
    // Imported late, so that --help and wrong usage answer at once.
    const { loadModel } = await import('../runtime/index.ts')
    const reason = options.backend || process.env.KVASIR_BACKEND ? undefined : whyNotNative()
    if (reason !== undefined)
      process.stderr.write(`note: attention runs without native kernels, more slowly: ${reason}\n`)
    // Most commands have nothing else to do meanwhile: a thread of its own would only cost its start.
    return await loadModel(path, { worker: false, ...options })
  },
})

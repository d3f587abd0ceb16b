#!/usr/bin/env node
/** The program `kvasir`: connects the command line to this process. */
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
  // Loaded late, so that --help and wrong usage answer at once.
  loadModel: async (path, options) => (await import('../runtime/index.ts')).loadModel(path, options),
})

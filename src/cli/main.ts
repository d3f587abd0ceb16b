#!/usr/bin/env node
/** The program `kvasir`: connects the command line to this process. */
import { constants } from 'node:os'
import { whyNotNative } from '../kernels/index.ts'
import { createDownloadBar } from './download-progress.ts'
import { exitCodes, runCli } from './program.ts'
import { createProgress } from './progress.ts'

const interrupt = new AbortController()
/** Of commands that may go on after Ctrl-C: the last one that asked says whether it does. */
const handlers: (() => boolean)[] = []
/** What told the process to stop, and when. */
let told: { readonly signal: 'SIGINT' | 'SIGTERM'; readonly at: number } | undefined
/** A service manager signals each process of a group, and npm passes on to its child what it gets: that is one signal. */
const oneSignalMs = 300

for (const signal of ['SIGINT', 'SIGTERM'] as const) {
  const stop = (): void => {
    if (told) {
      if (performance.now() - told.at < oneSignalMs) return
      process.removeAllListeners(signal) // a second Ctrl-C ends the process the usual way, whatever it is at
      process.kill(process.pid, signal)
    } else if (signal === 'SIGTERM' || !handlers.at(-1)?.()) {
      told = { signal, at: performance.now() }
      interrupt.abort()
      process.stdin.destroy() // a prompt that is still being read would not notice
    }
  }
  process.on(signal, stop)
}

for (const stream of [process.stdout, process.stderr]) {
  stream.on('error', (error: NodeJS.ErrnoException) => {
    // Whoever read our output (head, less) has seen enough.
    if (error.code === 'EPIPE') process.exit(0)
    throw error
  })
}

const code = await runCli(process.argv.slice(2), {
  stdin: process.stdin,
  stdout: process.stdout,
  stderr: process.stderr,
  env: process.env,
  signal: interrupt.signal,
  onInterrupt: (handler) => {
    handlers.push(handler)
    return () => handlers.splice(handlers.indexOf(handler), 1)
  },
  loadModel: async (path, options) => {
    // Imported late, so that --help and wrong usage answer at once.
    const { loadModel } = await import('../runtime/index.ts')
    const reason = options.backend || process.env.KVASIR_BACKEND ? undefined : whyNotNative()
    if (reason !== undefined)
      process.stderr.write(`note: attention runs without native kernels, more slowly: ${reason}\n`)
    const bar = createDownloadBar((progress) => createProgress(process.stderr, progress))
    // Most commands have nothing else to do meanwhile: a thread of its own would only cost its start.
    const { onDownload } = bar
    return await loadModel(path, { worker: false, signal: interrupt.signal, onDownload, ...options }).finally(bar.end)
  },
})
// As shells count: 130 after Ctrl-C, 143 after SIGTERM.
process.exitCode = code === exitCodes.interrupted && told ? 128 + constants.signals[told.signal] : code

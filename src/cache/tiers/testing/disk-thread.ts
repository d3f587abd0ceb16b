import { fileURLToPath } from 'node:url'
import { Worker } from 'node:worker_threads'

/** What `disk-process.ts` does, in a thread: each line that it would print is a message. */
export function startThread(args: readonly string[]): Worker {
  const script = fileURLToPath(new URL('./disk-process.ts', import.meta.url))
  const start = `import('tsx/esm/api').then(({ register }) => { register(); return import(${JSON.stringify(script)}) })`
  return new Worker(start, { eval: true, execArgv: [], workerData: args })
}

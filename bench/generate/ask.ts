/** A process of its own for each visit: what one loads, allocates and caches is nothing to the next. */
import { fork } from 'node:child_process'
import { dirname, extname } from 'node:path'
import { fileURLToPath } from 'node:url'
import { KvasirError } from '../../src/tensor/error.ts'
import type { Answer, Reply, Request } from './messages.ts'

const own = fileURLToPath(import.meta.url)
const extension = extname(own)
const workerFile = own.replace(/[^/\\]+$/, `worker${extension}`)

type Outcome = Answer | { readonly kind: 'skipped'; readonly reason: string }

/**
 * Starts a process, gives it one request and waits until it is gone. One that ends without a reply (no memory) counts
 * as `skipped`.
 * @throws KvasirError what the process threw; `aborted`
 */
export async function ask(request: Request, signal?: AbortSignal): Promise<Outcome> {
  const reply = await exchange(request, signal)
  if (reply.kind !== 'failed') return reply
  throw new KvasirError(reply.code, reply.area, reply.message.replace(`[kvasir:${reply.area}] `, ''))
}

function exchange(request: Request, signal: AbortSignal | undefined): Promise<Reply> {
  if (signal?.aborted) return Promise.reject(interrupted())
  // From the sources with their loader, found from this folder whatever the working directory is.
  const loader = extension === '.ts' ? ['--import', 'tsx'] : []
  const child = fork(workerFile, [], {
    cwd: dirname(own),
    execArgv: [...loader, '--expose-gc'],
    stdio: ['ignore', 'ignore', 'pipe', 'ipc'],
  })
  let reply: Reply | undefined
  let errors = ''
  const kill = () => child.kill('SIGKILL')
  return new Promise((resolve, reject) => {
    child.stderr?.setEncoding('utf8').on('data', (text: string) => {
      errors = (errors + text).slice(-2000)
    })
    child.once('message', (message) => {
      reply = message as Reply
      kill()
    })
    child.once('error', (error) => {
      reply ??= { kind: 'skipped', reason: error.message }
    })
    child.once('close', (code, end) => {
      signal?.removeEventListener('abort', kill)
      if (signal?.aborted) reject(interrupted())
      else
        resolve(
          reply ?? {
            kind: 'skipped',
            reason: `its process ended with ${end ?? `exit code ${code}`}: ${lastLine(errors)}`,
          },
        )
    })
    signal?.addEventListener('abort', kill)
    child.send(request)
  })
}

const interrupted = (): KvasirError => new KvasirError('aborted', 'bench', 'interrupted')

function lastLine(text: string): string {
  return text.trim().split('\n').at(-1) || 'no message'
}

/**
 * A process of its own for each that takes part in a bench: memory, threads and pools of one do not disturb another.
 * Requests and replies are those of the bench; its worker answers with `serve`.
 */
import { type ChildProcess, fork, type Serializable } from 'node:child_process'
import { dirname, extname } from 'node:path'
import { fileURLToPath } from 'node:url'
import { KvasirError, type KvasirErrorCode } from '../src/tensor/error.ts'

/** Why someone does not take part. */
export interface Skip {
  readonly kind: 'skipped'
  readonly reason: string
}

/** What `serve` says of an error of ours. */
export interface Failure {
  readonly kind: 'failed'
  readonly code: KvasirErrorCode
  readonly area: string
  readonly message: string
}

export class Contestant<Request, Reply extends { readonly kind: string }> {
  readonly #child: ChildProcess
  #errors = ''

  /** @param module `import.meta.url` of a file beside the bench's worker.ts */
  constructor(module: string) {
    const own = fileURLToPath(module)
    const extension = extname(own)
    // From the sources with their loader, found from this folder whatever the working directory is.
    const loader = extension === '.ts' ? ['--import', 'tsx'] : []
    this.#child = fork(own.replace(/[^/\\]+$/, `worker${extension}`), [], {
      cwd: dirname(own),
      execArgv: [...loader, '--expose-gc'],
      stdio: ['ignore', 'ignore', 'pipe', 'ipc'],
    })
    this.#child.stderr?.setEncoding('utf8').on('data', (text: string) => {
      this.#errors = (this.#errors + text).slice(-2000)
    })
  }

  /**
   * One request, one reply. A process that ends instead (no memory) counts as `skipped`.
   * @throws KvasirError what the contestant threw; `aborted`
   */
  async ask(request: Request, signal?: AbortSignal): Promise<Reply | Skip> {
    const reply = await this.#exchange(request, signal)
    if (!isFailure(reply)) return reply
    const text = reply.message.replace(`[kvasir:${reply.area}] `, '')
    throw new KvasirError(reply.code, reply.area, text)
  }

  #exchange(request: Request, signal: AbortSignal | undefined): Promise<Reply | Skip | Failure> {
    const child = this.#child
    return new Promise((resolve, reject) => {
      const settle = (act: () => void) => {
        child.off('message', onMessage).off('exit', onExit).off('error', onError)
        signal?.removeEventListener('abort', onAbort)
        act()
      }
      const onMessage = (reply: unknown) => settle(() => resolve(reply as Reply))
      const onAbort = () => settle(() => reject(new KvasirError('aborted', 'bench', 'interrupted')))
      const onExit = (code: number | null, end: string | null) => {
        if (end === 'SIGINT') return onAbort() // Ctrl-C, before `serve` was there to leave it to us
        const reason = `its process ended with ${end ?? `exit code ${code}`}: ${lastLine(this.#errors)}`
        settle(() => resolve({ kind: 'skipped', reason }))
      }
      const onError = (error: Error) => settle(() => resolve({ kind: 'skipped', reason: error.message }))
      if (signal?.aborted) return onAbort()
      child.on('message', onMessage).on('exit', onExit).on('error', onError)
      signal?.addEventListener('abort', onAbort)
      if (child.exitCode !== null || child.signalCode !== null) return onExit(child.exitCode, child.signalCode)
      child.send(request as Serializable)
    })
  }

  /** Resolves when the process is gone and its memory with it. */
  close(): Promise<void> {
    const child = this.#child
    if (child.exitCode !== null || child.signalCode !== null) return Promise.resolve()
    return new Promise((resolve) => {
      child.once('exit', () => resolve())
      child.kill('SIGKILL')
    })
  }
}

function lastLine(text: string): string {
  return text.trim().split('\n').at(-1) || 'no message'
}

function isFailure(reply: { readonly kind: string }): reply is Failure {
  return reply.kind === 'failed'
}

/** One request to a process of its own, which is gone when this settles. */
export async function askOnce<Request, Reply extends { readonly kind: string }>(
  module: string,
  request: Request,
  signal?: AbortSignal,
): Promise<Reply | Skip> {
  const contestant = new Contestant<Request, Reply>(module)
  try {
    return await contestant.ask(request, signal)
  } finally {
    await contestant.close()
  }
}

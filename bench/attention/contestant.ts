/** A process of its own for each contestant and case: memory, threads and pools of one do not disturb another. */
import { type ChildProcess, fork } from 'node:child_process'
import { dirname, extname } from 'node:path'
import { fileURLToPath } from 'node:url'
import { KvasirError } from '../../src/tensor/error.ts'
import type { Reply, Request } from './messages.ts'

const own = fileURLToPath(import.meta.url)
const extension = extname(own)
const workerFile = own.replace(/[^/\\]+$/, `worker${extension}`)

export class Contestant {
  readonly #child: ChildProcess
  #errors = ''

  constructor() {
    // From the sources with their loader, found from this folder whatever the working directory is.
    const loader = extension === '.ts' ? ['--import', 'tsx'] : []
    this.#child = fork(workerFile, [], {
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
  async ask(request: Request, signal?: AbortSignal): Promise<Exclude<Reply, { kind: 'failed' }>> {
    const reply = await this.#exchange(request, signal)
    if (reply.kind !== 'failed') return reply
    const text = reply.message.replace(`[kvasir:${reply.area}] `, '')
    throw new KvasirError(reply.code, reply.area, text)
  }

  #exchange(request: Request, signal: AbortSignal | undefined): Promise<Reply> {
    const child = this.#child
    return new Promise((resolve, reject) => {
      const settle = (act: () => void) => {
        child.off('message', onMessage).off('exit', onExit).off('error', onError)
        signal?.removeEventListener('abort', onAbort)
        act()
      }
      const onMessage = (reply: unknown) => settle(() => resolve(reply as Reply))
      const onExit = (code: number | null, end: string | null) => {
        const reason = `its process ended with ${end ?? `exit code ${code}`}: ${lastLine(this.#errors)}`
        settle(() => resolve({ kind: 'skipped', reason }))
      }
      const onError = (error: Error) => settle(() => resolve({ kind: 'skipped', reason: error.message }))
      const onAbort = () => settle(() => reject(new KvasirError('aborted', 'bench', 'interrupted')))
      if (signal?.aborted) return onAbort()
      child.on('message', onMessage).on('exit', onExit).on('error', onError)
      signal?.addEventListener('abort', onAbort)
      if (child.exitCode !== null || child.signalCode !== null) return onExit(child.exitCode, child.signalCode)
      child.send(request)
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

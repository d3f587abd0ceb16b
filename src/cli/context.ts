/** What the commands get from outside: streams, the environment, an interrupt and the library itself. */
import type { CausalLM, LoadOptions } from '../runtime/contract.ts'
import type { Output } from './terminal.ts'

export interface Input extends AsyncIterable<string | Uint8Array> {
  readonly isTTY?: boolean
}

export interface CliContext {
  readonly stdin: Input
  readonly stdout: Output
  readonly stderr: Output
  readonly env: NodeJS.ProcessEnv
  /** Fires at the first Ctrl-C. */
  readonly signal: AbortSignal
  /**
   * Asks `handler` first at Ctrl-C, until the function that is returned is called: when it returns true, `signal` does
   * not fire. Absent where there is no Ctrl-C.
   */
  onInterrupt?(handler: () => boolean): () => void
  /** Tests give a model of their own. */
  loadModel(path: string, options: LoadOptions): Promise<CausalLM>
}

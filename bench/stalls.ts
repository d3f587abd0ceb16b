/** How long a program's event loop stands still while a model writes: beside it in a thread of its own, or in its own. */
import { monitorEventLoopDelay } from 'node:perf_hooks'
import { type LoadOptions, loadModel } from '../src/index.ts'

export interface StallRow {
  /** Where the model runs. */
  readonly thread: 'own' | "caller's"
  readonly promptTokens: number
  readonly generatedTokens: number
  readonly tokensPerSecond: number
  /** The longest time that a timer of one millisecond came late. */
  readonly longestStallMs: number
  readonly p99StallMs: number
}

export interface StallOptions {
  readonly path: string
  readonly load: LoadOptions
  readonly promptTokens: number
  readonly maxNewTokens: number
  readonly signal?: AbortSignal
}

const nanosecondsPerMs = 1e6

/** Reads a prompt and streams an answer, once with each place; the loop of the caller does nothing else. */
export async function benchStalls({
  path,
  load,
  promptTokens,
  maxNewTokens,
  signal,
}: StallOptions): Promise<StallRow[]> {
  const rows: StallRow[] = []
  for (const worker of [true, false]) {
    const model = await loadModel(path, { ...load, worker })
    try {
      const prompt = Array.from({ length: promptTokens }, (_, i) => (i * 7919) % model.vocabSize)
      const options = { maxNewTokens, ignoreEos: true, signal }
      await model.generate(prompt.slice(0, 16), { ...options, maxNewTokens: 4 }) // first use compiles and allocates
      const delay = monitorEventLoopDelay({ resolution: 1 })
      delay.enable()
      for await (const event of model.stream(prompt, options)) {
        if (event.type === 'token') continue
        delay.disable()
        const { generatedTokens, decodeMs } = event.result
        rows.push({
          thread: worker ? 'own' : "caller's",
          promptTokens,
          generatedTokens,
          tokensPerSecond: (generatedTokens * 1000) / decodeMs,
          longestStallMs: delay.max / nanosecondsPerMs,
          p99StallMs: delay.percentile(99) / nanosecondsPerMs,
        })
      }
    } finally {
      await model.dispose()
    }
  }
  return rows
}

/** Reads many tokens into a cache, a chunk at a time, so that others get a turn and the caller can stop. */
import type { KvCache } from '../cache/contract.ts'
import { KvasirError } from '../tensor/error.ts'
import type { CausalLM, PrefillOptions } from './contract.ts'

export interface FeedOptions extends PrefillOptions {
  readonly chunkSize: number
  /** Whether the logits after the last token are wanted. */
  readonly wantLogits: boolean
}

/**
 * @returns the logits after the last token `[V]`, when wanted
 * @throws KvasirError `aborted` between chunks; the cache then holds the chunks that were read
 */
export async function feedTokens(
  model: Pick<CausalLM, 'forward'>,
  cache: KvCache,
  tokens: Int32Array | readonly number[],
  { chunkSize, wantLogits, signal, onPrefill }: FeedOptions,
): Promise<Float32Array | undefined> {
  let logits: Float32Array | undefined
  for (let done = 0; done < tokens.length; ) {
    if (signal?.aborted) {
      const message = `aborted after ${done} of ${tokens.length} tokens`
      throw new KvasirError('aborted', 'runtime', message, { cause: signal.reason })
    }
    const chunk = tokens.slice(done, done + chunkSize)
    done += chunk.length
    const isLast = wantLogits && done === tokens.length
    const logitsOf = isLast ? [chunk.length - 1] : []
    const result = await model.forward([{ cache, tokens: chunk, logitsOf, following: tokens.length - done }])
    if (isLast) logits = result.data as Float32Array
    onPrefill?.(done, tokens.length)
  }
  return logits
}

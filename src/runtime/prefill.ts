/** Reads many tokens into a cache, a chunk at a time, so that others get a turn and the caller can stop. */
import type { KvCache } from '../cache/contract.ts'
import type { SharedPrefixes } from '../cache/prefix/shared-prefixes.ts'
import { KvasirError } from '../tensor/error.ts'
import type { CausalLM, PrefillOptions } from './contract.ts'
import { checkUndisturbed } from './hold.ts'

export interface FeedOptions extends PrefillOptions {
  readonly chunkSize: number
  /** Whether the logits after the last token are wanted. */
  readonly wantLogits: boolean
  /** What other texts have computed, for caches that are empty. */
  readonly prefixes?: SharedPrefixes | undefined
}

export interface FedTokens {
  /** After the last token `[V]`, when wanted. */
  readonly logits: Float32Array | undefined
  /** Tokens that were not computed. */
  readonly reusedTokens: number
}

/**
 * A text that begins in a cache of shared prefixes goes on in chunks that end where they would have without.
 * @throws KvasirError `aborted` between chunks; the cache then holds the chunks that were read. `invalid-argument` when
 * somebody else changes the cache meanwhile
 */
export async function feedTokens(
  model: Pick<CausalLM, 'forward'>,
  cache: KvCache,
  tokens: Int32Array | readonly number[],
  { chunkSize, wantLogits, signal, onPrefill, prefixCache, ...given }: FeedOptions,
): Promise<FedTokens> {
  const prefixes = prefixCache === false ? undefined : given.prefixes
  const before = cache.seenTokens
  const salt = prefixCache ? prefixCache.salt : undefined
  const reading = { textTokens: before + tokens.length, chunkSize, isWhole: before === 0, salt }
  const reusedTokens = (await prefixes?.reuse(cache, tokens, reading)) ?? 0
  let logits: Float32Array | undefined
  for (let done = reusedTokens; done < tokens.length; ) {
    if (signal?.aborted) {
      const message = `aborted after ${done} of ${tokens.length} tokens`
      throw new KvasirError('aborted', 'runtime', message, { cause: signal.reason })
    }
    checkUndisturbed(cache, before + done)
    const stop = prefixes?.nextStop(cache, reading) ?? Number.POSITIVE_INFINITY
    const chunk = tokens.slice(done, Math.min(done + chunkSize - (done % chunkSize), stop - before))
    done += chunk.length
    const isLast = wantLogits && done === tokens.length
    const logitsOf = isLast ? [chunk.length - 1] : []
    const result = await model.forward([{ cache, tokens: chunk, logitsOf, following: tokens.length - done }])
    checkUndisturbed(cache, before + done)
    if (isLast) logits = result.data as Float32Array
    await prefixes?.keep(cache, reading)
    onPrefill?.(done, tokens.length)
  }
  return { logits, reusedTokens }
}

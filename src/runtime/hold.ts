/** Calls on one cache come one after the other: two at once would mix their texts. */
import type { KvCache } from '../cache/contract.ts'
import { invalidArgument } from '../tensor/error.ts'

const held = new WeakSet<KvCache>()

/**
 * Runs a call that writes into `cache`, if it is one that others have too.
 * @throws KvasirError `invalid-argument` while another such call runs, which goes on undisturbed
 */
export async function holding<T>(cache: KvCache | undefined, call: () => Promise<T>): Promise<T> {
  if (!cache) return await call()
  if (held.has(cache)) throw disturbed('one that a call is writing into')
  held.add(cache)
  try {
    return await call()
  } finally {
    held.delete(cache)
  }
}

/** A stream that holds the cache while it computes, not while nobody asks for its next value: it may never be asked again. */
export async function* holdingSteps<T>(cache: KvCache | undefined, stream: AsyncGenerator<T>): AsyncGenerator<T> {
  try {
    for (;;) {
      const { done, value } = await holding(cache, () => stream.next())
      if (done) return
      yield value
    }
  } finally {
    await stream.return(undefined)
  }
}

/**
 * For caches that changed where nothing holds them: between the steps of a stream, or by `forward`.
 * @throws KvasirError `invalid-argument` unless the cache holds as many tokens as one call has left in it
 */
export function checkUndisturbed({ seenTokens }: KvCache, expected: number): void {
  if (seenTokens !== expected) throw disturbed(`${seenTokens} tokens in it, not ${expected}`)
}

function disturbed(got: string) {
  return invalidArgument('runtime', `expected a cache that no other call changes meanwhile, got ${got}`)
}

/** What is kept under a key, as bytes: a block of tokens with their rows, or the whole state of a cache. */
import type { KvCache } from '../contract.ts'
import { invalidState, type Stateful } from '../snapshot/state.ts'

/** The tokens of a block, then their rows. */
export function blockOf(cache: KvCache, tokens: Int32Array, first: number, count: number): Stateful {
  return {
    visitState(visitor) {
      const ids = tokens.slice(first, first + count)
      visitor.integers('token ids', ids, 0)
      checkSame(ids, tokens, first)
      cache.visitTokens?.(visitor, first, count)
    },
  }
}

/** The whole state of a cache that has seen `count` tokens. */
export function stateOf(cache: KvCache, tokens: Int32Array, count: number): Stateful {
  return {
    visitState(visitor) {
      cache.visitState?.(visitor)
      const ids = cache.tokens ?? []
      if (ids.length !== count) throw invalidState(`expected a state after ${count} tokens, got ${ids.length}`)
      checkSame(ids, tokens, 0)
    },
  }
}

function checkSame(ids: ArrayLike<number>, tokens: ArrayLike<number>, first: number): void {
  for (let i = 0; i < ids.length; i++) {
    if (ids[i] !== tokens[first + i]) throw invalidState(`expected token ${tokens[first + i]}, got ${ids[i]}`)
  }
}

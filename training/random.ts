/**
 * A small seeded generator of random numbers (sfc32, seeded through splitmix32), so that every story, sample and
 * evaluation document can be made again from one integer on any platform. Not for cryptography.
 */

export interface Random {
  /** Uniform in [0, 1). */
  next(): number
  /** Uniform integer in [0, limit). */
  below(limit: number): number
  /** Uniform integer in [low, high], both included. */
  between(low: number, high: number): number
  /** True with the given probability. */
  chance(probability: number): boolean
  /** One element of a non-empty list. */
  pick<T>(list: readonly T[]): T
  /** A new list with the same elements in random order. */
  shuffle<T>(list: readonly T[]): T[]
}

export function createRandom(seed: number): Random {
  const [a, b, c, d] = splitmix32(seed, 4)
  const next = sfc32(a ?? 0, b ?? 0, c ?? 0, d ?? 0)
  const below = (limit: number): number => Math.floor(next() * limit)
  return {
    next,
    below,
    between: (low, high) => low + below(high - low + 1),
    chance: (probability) => next() < probability,
    pick<T>(list: readonly T[]): T {
      return list[below(list.length)] as T
    },
    shuffle<T>(list: readonly T[]): T[] {
      const shuffled = [...list]
      for (let last = shuffled.length - 1; last > 0; last--) {
        const other = below(last + 1)
        const moved = shuffled[last] as T
        shuffled[last] = shuffled[other] as T
        shuffled[other] = moved
      }
      return shuffled
    },
  }
}

/** Spreads one integer over `count` well-mixed 32-bit words, so that neighbouring seeds give unrelated streams. */
function splitmix32(seed: number, count: number): number[] {
  let state = seed >>> 0
  return Array.from({ length: count }, () => {
    state = (state + 0x9e3779b9) >>> 0
    let mixed = state ^ (state >>> 16)
    mixed = Math.imul(mixed, 0x21f0aaad)
    mixed ^= mixed >>> 15
    mixed = Math.imul(mixed, 0x735a2d97)
    return (mixed ^ (mixed >>> 15)) >>> 0
  })
}

function sfc32(a: number, b: number, c: number, counter: number): () => number {
  return () => {
    const sum = (a + b + counter) | 0
    counter = (counter + 1) | 0
    a = b ^ (b >>> 9)
    b = (c + (c << 3)) | 0
    c = (c << 21) | (c >>> 11)
    c = (c + sum) | 0
    return (sum >>> 0) / 0x1_0000_0000
  }
}

/** Numbers from seeds: the same everywhere. */

/** Uniform numbers in [0, 1) from a seed (splitmix32): small, good enough, the same everywhere. */
export function createRandom(seed: number): () => number {
  let state = seed >>> 0
  return () => {
    state = (state + 0x9e3779b9) >>> 0
    let z = state
    z = Math.imul(z ^ (z >>> 16), 0x21f0aaad)
    z = Math.imul(z ^ (z >>> 15), 0x735a2d97)
    return ((z ^ (z >>> 15)) >>> 0) / 2 ** 32
  }
}

/** Standard normal values. */
export function normal(random: () => number, length: number, scale = 1): Float32Array {
  const values = new Float32Array(length)
  for (let i = 0; i < length; i++) {
    values[i] = scale * Math.sqrt(-2 * Math.log(1 - random())) * Math.cos(2 * Math.PI * random())
  }
  return values
}

/** One of a list. */
export function pickFrom<T>(random: () => number, choices: readonly T[]): T {
  return choices[Math.floor(random() * choices.length)] as T
}

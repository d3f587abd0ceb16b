/** A small seeded generator of uniform numbers (sfc32): the same seed gives the same text on every machine. */

export type Random = () => number

/** Uniform in [0, 1), 32 bits fine. Without a seed, one is drawn from the platform. */
export function createRandom(seed?: number): Random {
  const words = seed === undefined ? crypto.getRandomValues(new Uint32Array(2)) : splitSeed(seed)
  let [a, b, c, counter] = [0, words[0] as number, words[1] as number, 1]
  const next = (): number => {
    const result = (a + b + counter) | 0
    counter = (counter + 1) | 0
    a = b ^ (b >>> 9)
    b = (c + (c << 3)) | 0
    c = (c << 21) | (c >>> 11)
    c = (c + result) | 0
    return (result >>> 0) / 2 ** 32
  }
  for (let i = 0; i < 12; i++) next() // mixes the seed in, as the author of sfc32 recommends
  return next
}

/** Low and high word of a safe integer; the sign goes into the high word. */
function splitSeed(seed: number): Uint32Array {
  return Uint32Array.of(seed >>> 0, Math.floor(seed / 2 ** 32) >>> 0)
}

/** A small layer for tests of caches, and what turns its queries and keys. */
import type { LayerRotary, LayerShape } from '../contract.ts'

export const smallLayer: LayerShape = { numHeads: 4, numKvHeads: 2, headDim: 8, valueDim: 6 }

export const frequencies = [0.9, 0.31, 0.07]

export const smallRotary: LayerRotary = {
  pairs: frequencies.length,
  isInterleaved: false,
  fill(positions, _length, cos, sin) {
    for (let t = 0; t < positions.length; t++) {
      for (const [i, frequency] of frequencies.entries()) {
        cos[t * frequencies.length + i] = Math.cos((positions[t] as number) * frequency)
        sin[t * frequencies.length + i] = Math.sin((positions[t] as number) * frequency)
      }
    }
  },
}

/** Features and targets of one head, over many texts: at most so many rows, every n-th where there are more. */
import type { HeadView } from './observe.ts'
import { type Target, targetsOf } from './targets.ts'

export class Samples {
  readonly numFeatures: number
  readonly #capacity: number
  readonly #features: Float32Array
  readonly #targets: Float64Array
  readonly #weights: Float64Array
  #count = 0
  /** Rows that were offered; every `stride`-th of them is held. */
  #offered = 0
  #stride = 1

  constructor(numFeatures: number, capacity: number) {
    this.numFeatures = numFeatures
    this.#capacity = capacity - (capacity % 2) // so that every second row, and the one that comes, are evenly apart
    this.#features = new Float32Array(capacity * numFeatures)
    this.#targets = new Float64Array(capacity)
    this.#weights = new Float64Array(capacity)
  }

  get count(): number {
    return this.#count
  }

  /** `[n, F]` */
  get features(): Float32Array {
    return this.#features.subarray(0, this.#count * this.numFeatures)
  }

  get targets(): Float64Array {
    return this.#targets.subarray(0, this.#count)
  }

  get weights(): Float64Array {
    return this.#weights.subarray(0, this.#count)
  }

  add(head: HeadView): void {
    this.addAll(targetsOf(head), head.features)
  }

  /** @param features writes those of a token */
  addAll(targets: readonly Target[], features: HeadView['features']): void {
    for (const { token, value, weight } of targets) {
      const isWanted = this.#offered++ % this.#stride === 0
      if (!isWanted) continue
      if (this.#count === this.#capacity) this.#thin()
      features(token, this.#row(this.#count))
      this.#targets[this.#count] = value
      this.#weights[this.#count++] = weight
    }
  }

  #row(n: number): Float32Array {
    return this.#features.subarray(n * this.numFeatures, (n + 1) * this.numFeatures)
  }

  /** Keeps every second row. */
  #thin(): void {
    this.#count = Math.floor(this.#count / 2)
    for (let n = 0; n < this.#count; n++) {
      this.#row(n).set(this.#row(2 * n))
      this.#targets[n] = this.#targets[2 * n] as number
      this.#weights[n] = this.#weights[2 * n] as number
    }
    this.#stride *= 2
  }
}

/** Queries that policies look back at: the last ones, for their attention, and a sample of all, for statistics. */
import type { KeptRows } from '../retention.ts'
import type { StateVisitor } from '../snapshot/state.ts'

/** The last `size` queries of a layer, as they came. */
export class QueryRing {
  readonly #size: number
  readonly #width: number
  readonly #rows: Float32Array
  #count = 0

  /** @param width H * D */
  constructor(size: number, width: number) {
    this.#size = size
    this.#width = width
    this.#rows = new Float32Array(size * width)
  }

  get count(): number {
    return Math.min(this.#count, this.#size)
  }

  add(queries: Float32Array, numTokens: number): void {
    for (let t = Math.max(0, numTokens - this.#size); t < numTokens; t++) {
      const at = ((this.#count + t) % this.#size) * this.#width
      this.#rows.set(queries.subarray(t * this.#width, (t + 1) * this.#width), at)
    }
    this.#count += numTokens
  }

  /** `[count, H, D]`, oldest first. */
  latest(): Float32Array {
    const queries = new Float32Array(this.count * this.#width)
    for (let n = 0; n < this.count; n++) {
      const at = ((this.#count - this.count + n) % this.#size) * this.#width
      queries.set(this.#rows.subarray(at, at + this.#width), n * this.#width)
    }
    return queries
  }

  visitState(visitor: StateVisitor): void {
    visitor.fixed('last queries', this.#size)
    this.#count = visitor.integer('queries', this.#count, 0)
    visitor.numbers(this.#rows.subarray(0, this.count * this.#width))
  }

  clear(): void {
    this.#count = 0
  }

  copyFrom(other: QueryRing): void {
    this.#rows.set(other.#rows)
    this.#count = other.#count
  }
}

/** The first tokens attend like no others: statistics leave them out. */
const skippedTokens = 4

/**
 * At most `size` queries, spread evenly over all that came: every n-th, where n doubles when the sample is full. Which
 * ones depends on their positions alone, not on how they came in chunks.
 */
export class QuerySampler {
  readonly #size: number
  readonly #width: number
  readonly #rows: Float32Array
  #count = 0
  #stride = 1

  constructor(size: number, width: number) {
    this.#size = size
    this.#width = width
    this.#rows = new Float32Array(size * width)
  }

  add(queries: Float32Array, numTokens: number, firstPosition: number): void {
    for (let t = 0; t < numTokens; t++) {
      const number = firstPosition + t - skippedTokens
      if (number < 0 || number % this.#stride !== 0) continue
      if (this.#count === this.#size) this.#thin()
      if (number % this.#stride !== 0) continue
      this.#rows.set(queries.subarray(t * this.#width, (t + 1) * this.#width), this.#count * this.#width)
      this.#count++
    }
  }

  #thin(): void {
    for (let n = 0; 2 * n < this.#count; n++) {
      this.#rows.copyWithin(n * this.#width, 2 * n * this.#width, (2 * n + 1) * this.#width)
    }
    this.#count = Math.ceil(this.#count / 2)
    this.#stride *= 2
  }

  sample(meanRotation: NonNullable<KeptRows['sample']>['meanRotation']): KeptRows['sample'] {
    return { count: this.#count, queries: this.#rows.subarray(0, this.#count * this.#width), meanRotation }
  }

  visitState(visitor: StateVisitor): void {
    visitor.fixed('sampled queries', this.#size)
    this.#count = visitor.integer('samples', this.#count, 0, this.#size)
    this.#stride = visitor.integer('stride', this.#stride, 1)
    visitor.numbers(this.#rows.subarray(0, this.#count * this.#width))
  }

  clear(): void {
    this.#count = 0
    this.#stride = 1
  }

  copyFrom(other: QuerySampler): void {
    this.#rows.set(other.#rows)
    this.#count = other.#count
    this.#stride = other.#stride
  }
}

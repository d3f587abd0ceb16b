/**
 * One layer of one sequence that keeps every token and grows by doubling. With a window W it still keeps everything,
 * but each query sees only the W visible tokens of highest importance, chosen anew: dynamic mask attention, the
 * definition that the bounded cache must agree with.
 */
import type { KeyValueSegment, Memory } from '../kernels/index.ts'
import type { CacheInfo, LayerCache, LayerInput } from './contract.ts'
import { attentionOf, bytesPerToken, checkInput, consecutiveRows, KeyValueStore, type LayerConfig } from './layout.ts'

export interface FullCacheOptions extends LayerConfig {
  /** W of the dynamic mask; absent: a query sees everything before it. */
  readonly window?: number
  readonly addImportance?: boolean
}

type Queries = Pick<LayerInput, 'query' | 'numTokens'>

const firstCapacity = 256

export class FullCache implements LayerCache {
  readonly #options: FullCacheOptions
  readonly #hasImportance: boolean
  #store: KeyValueStore
  /** `[K, C]`, absent for models without importance. */
  #scores: Memory | undefined
  #seen = 0

  constructor(options: FullCacheOptions, hasImportance: boolean) {
    this.#options = options
    this.#hasImportance = hasImportance
    this.#store = new KeyValueStore(options, firstCapacity)
    this.#scores = this.#allocScores(firstCapacity)
  }

  attend(input: LayerInput, output: Float32Array): void {
    checkInput(this.#options, this.#hasImportance, input, output)
    this.#write(input)
    this.#attendFrom(this.#seen, input, output)
    this.#seen += input.numTokens
  }

  attendAgain(input: Queries, output: Float32Array): void {
    checkInput(this.#options, false, input, output, true)
    this.#attendFrom(this.#seen - input.numTokens, input, output)
  }

  #attendFrom(first: number, input: Queries, output: Float32Array): void {
    if (this.#options.window === undefined) this.#attendAll(first, input, output)
    else this.#attendMasked(first, input, output, this.#options.window)
  }

  /** Takes tokens in without attending. */
  append(input: Omit<LayerInput, 'query'>): void {
    checkInput(this.#options, this.#hasImportance, input)
    this.#write(input)
    this.#seen += input.numTokens
  }

  /** A row's place is its position: row j is seen by queries from position j on. */
  #attendAll(first: number, input: Queries, output: Float32Array): void {
    const { numKvHeads } = this.#options.shape
    const lengths = new Int32Array(numKvHeads).fill(first + input.numTokens)
    this.#run(input, output, this.#segment(lengths), first)
  }

  /** Query by query: rows 0..i are ranked anew and the best W gathered. */
  #attendMasked(first: number, input: Queries, output: Float32Array, window: number): void {
    const { kernels, shape } = this.#options
    const { numHeads, numKvHeads, headDim, valueDim } = shape
    const { capacity } = this.#store
    const rows = new Int32Array(numKvHeads * capacity)
    const lengths = new Int32Array(numKvHeads)
    for (let t = 0; t < input.numTokens; t++) {
      const scores = (this.#scores as Memory).f32
      kernels.select({ scores, numKvHeads, capacity, numRows: first + t + 1, window, rows, lengths })
      const query = input.query.subarray(t * numHeads * headDim, (t + 1) * numHeads * headDim)
      const out = output.subarray(t * numHeads * valueDim, (t + 1) * numHeads * valueDim)
      this.#run({ query, numTokens: 1 }, out, { ...this.#segment(lengths), rows }, first + t)
    }
  }

  #segment(lengths: Int32Array): KeyValueSegment {
    const { keys, values, capacity } = this.#store
    return {
      keys,
      values,
      capacity,
      lengths,
      firstPosition: 0,
      bias: this.#options.addImportance === false ? undefined : this.#scores?.f32,
    }
  }

  #run({ query, numTokens }: Queries, output: Float32Array, segment: KeyValueSegment, firstPosition: number): void {
    const { kernels, shape } = this.#options
    const left = shape.window === undefined ? undefined : shape.window - 1
    const seen = { firstPosition, left, right: 0, segments: [segment] }
    kernels.attend({ query, output, numTokens, ...attentionOf(shape), ...seen })
  }

  #write({ key, value, importance, numTokens }: Omit<LayerInput, 'query'>): void {
    const { numKvHeads } = this.#options.shape
    this.#reserve(this.#seen + numTokens)
    this.#store.write(key, value, numTokens, consecutiveRows(numKvHeads, numTokens, this.#seen))
    if (!this.#scores || !importance) return
    const scores = this.#scores.f32
    for (let k = 0; k < numKvHeads; k++) {
      for (let t = 0; t < numTokens; t++) {
        scores[k * this.#store.capacity + this.#seen + t] = importance[t * numKvHeads + k] as number
      }
    }
  }

  #reserve(numRows: number): void {
    if (numRows <= this.#store.capacity) return
    let capacity = this.#store.capacity
    while (capacity < numRows) capacity *= 2
    const { numKvHeads } = this.#options.shape
    this.#adopt(this.#copyInto(capacity, new Int32Array(numKvHeads).fill(this.#seen)))
  }

  #copyInto(capacity: number, lengths: Int32Array): { store: KeyValueStore; scores: Memory | undefined } {
    const store = new KeyValueStore(this.#options, capacity)
    store.copyFrom(this.#store, lengths)
    const scores = this.#allocScores(capacity)
    if (this.#scores && scores) {
      for (const [k, length] of lengths.entries()) {
        const start = k * this.#store.capacity
        scores.f32.set(this.#scores.f32.subarray(start, start + length), k * capacity)
      }
    }
    return { store, scores }
  }

  #adopt({ store, scores }: { store: KeyValueStore; scores: Memory | undefined }): void {
    this.dispose()
    this.#store = store
    this.#scores = scores
  }

  #allocScores(capacity: number): Memory | undefined {
    const { kernels, shape } = this.#options
    return this.#hasImportance ? kernels.alloc(4 * shape.numKvHeads * capacity) : undefined
  }

  positions(_head: number): number[] {
    return Array.from({ length: this.#seen }, (_, i) => i)
  }

  info(): CacheInfo {
    return {
      keptTokens: this.#seen,
      seenTokens: this.#seen,
      capacityUtilization: this.#seen / this.#store.capacity,
      bytes: this.#store.bytes + (this.#scores?.byteLength ?? 0),
      fullBytes: this.#seen * bytesPerToken(this.#options, this.#hasImportance),
      evictedTokens: 0,
    }
  }

  truncate(length: number): void {
    this.#seen = Math.min(this.#seen, length)
  }

  reset(): void {
    this.#seen = 0
  }

  fork(): FullCache {
    const { numKvHeads } = this.#options.shape
    const copy = new FullCache(this.#options, this.#hasImportance)
    copy.#adopt(this.#copyInto(this.#store.capacity, new Int32Array(numKvHeads).fill(this.#seen)))
    copy.#seen = this.#seen
    return copy
  }

  dispose(): void {
    this.#store.free()
    this.#scores?.free()
  }
}

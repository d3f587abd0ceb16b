/** The kept set of one layer as memory that kernels write, and the lists in which `retain` reports what changed. */
import type { KeptSet, Kernels, Memory } from '../../kernels/index.ts'
import { invalidState, type StateVisitor } from '../snapshot/state.ts'

export interface KeptStateOptions {
  readonly kernels: Kernels
  readonly shape: { readonly numKvHeads: number }
  readonly window: number
  readonly sinks: number
  readonly recent: number
}

/** Owns the arrays of a `KeptSet` (contract of `retain`) in two blocks: one of f64, one of 32-bit words. */
export class KeptState {
  readonly #options: KeptStateOptions
  readonly #doubles: Memory
  readonly #words: Memory
  #view: KeptSet | undefined

  constructor(options: KeptStateOptions) {
    const { kernels, shape, window, recent } = options
    this.#options = options
    this.#doubles = kernels.alloc(8 * shape.numKvHeads * (window + 1))
    this.#words = kernels.alloc(4 * shape.numKvHeads * (2 * window + recent + 2))
    this.reset()
  }

  /** Made anew only when the memory has moved, so that a step makes no views. */
  get view(): KeptSet {
    if (this.#view?.scores.buffer !== this.#words.f32.buffer) this.#view = this.#createView()
    return this.#view
  }

  #createView(): KeptSet {
    const { shape, window, sinks, recent } = this.#options
    const K = shape.numKvHeads
    const { f32, i32 } = this.#words
    const heap = K * window
    const ring = heap + K * window
    const lengths = ring + K * recent
    return {
      numKvHeads: K,
      window,
      sinks,
      recent,
      scores: f32.subarray(0, heap),
      heap: i32.subarray(heap, ring),
      ring: i32.subarray(ring, lengths),
      lengths: i32.subarray(lengths, lengths + K),
      heapLengths: i32.subarray(lengths + K, lengths + 2 * K),
      positions: this.#doubles.f64.subarray(0, K * window),
      accepted: this.#doubles.f64.subarray(K * window, K * (window + 1)),
    }
  }

  reset(): void {
    const { lengths, heapLengths, accepted } = this.view
    lengths.fill(0)
    heapLengths.fill(0)
    accepted.fill(0)
  }

  /** @param seen tokens of the sequence, which positions are below */
  visitState(visitor: StateVisitor, seen: number): void {
    const { window, sinks, recent } = this.#options
    for (const [name, value] of Object.entries({ window, sinks, recent })) visitor.fixed(name, value)
    const { lengths, heapLengths, accepted, positions, scores, heap, ring } = this.view
    visitor.integers('rows', lengths, 0, window)
    visitor.integers('ranked rows', heapLengths, 0, window - sinks - recent)
    visitor.integers('accepted tokens', accepted, 0, seen)
    for (const [k, length] of lengths.entries()) {
      const rows = <T extends Int32Array | Float32Array | Float64Array>(array: T, count = length): T =>
        array.subarray(k * window, k * window + count) as T
      const [ranked, taken] = [heapLengths[k] as number, accepted[k] as number]
      // Of those that stayed in any case, the first are the sinks and the last are in the ring.
      const inRing = Math.max(0, Math.min(recent, taken - sinks))
      if (length !== Math.min(taken, sinks) + inRing + ranked) throw invalidState(`expected other than ${length} rows`)
      visitor.integers('positions', rows(positions), 0, seen - 1)
      visitor.numbers(rows(scores))
      visitor.integers('the heap', rows(heap, ranked), 0, length - 1)
      visitor.integers('recent rows', ring.subarray(k * recent, k * recent + inRing), 0, length - 1)
      if (visitor.isReading && new Set(rows(positions)).size < length) {
        throw invalidState('expected each position once a head')
      }
    }
  }

  copyFrom(other: KeptState): void {
    this.#doubles.f64.set(other.#doubles.f64)
    this.#words.i32.set(other.#words.i32)
  }

  free(): void {
    this.#doubles.free()
    this.#words.free()
  }
}

/** Outputs of `retain` for T tokens; its row list also says what to store where. */
export interface RetainPlan {
  /** `[K, W]`; absent in plans for one token */
  readonly rowDeaths?: Int32Array
  /** `[K, T]` */
  readonly tokenDeaths: Int32Array
  /** `[K]` */
  readonly counts: Int32Array
  /** `[K, stride]` */
  readonly tokens: Int32Array
  /** `[K, stride]` */
  readonly slots: Int32Array
  /** `[K, stride]`: of the tokens that had those rows before; where somebody asks */
  readonly leftPositions: Float64Array | undefined
  readonly leftScores: Float32Array | undefined
  /** min(T, W) */
  readonly stride: number
  /** `[T, K]`: of the new tokens, from when they are offered */
  scores?: Float32Array
}

/** @param isWatched somebody asks what leaves */
export function createPlan(
  { numKvHeads, window, isWatched }: { numKvHeads: number; window: number; isWatched: boolean },
  numTokens: number,
): RetainPlan {
  const stride = Math.min(numTokens, window)
  const listed = numKvHeads * stride
  // Side by side: a step finds them in few places of memory.
  const buffer = new ArrayBuffer(8 * listed + 4 * (3 * listed + numKvHeads * (numTokens + 1)))
  let at = 0
  const part = <T>(
    Type: new (buffer: ArrayBuffer, offset: number, length: number) => T,
    length: number,
    bytes = 4,
  ): T => {
    at += length * bytes
    return new Type(buffer, at - length * bytes, length)
  }
  return {
    leftPositions: isWatched ? part(Float64Array, listed, 8) : undefined,
    leftScores: isWatched ? part(Float32Array, listed) : undefined,
    rowDeaths: numTokens > 1 ? new Int32Array(numKvHeads * window) : undefined,
    tokenDeaths: part(Int32Array, numKvHeads * numTokens),
    counts: part(Int32Array, numKvHeads),
    tokens: part(Int32Array, listed),
    slots: part(Int32Array, listed),
    stride,
  }
}

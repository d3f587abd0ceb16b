/**
 * What is remembered of pages while their rows are elsewhere: for each KV head the least and greatest number of each
 * channel of its keys, which bounds what any of its keys can score for a query. Tang et al., "Quest: Query-Aware
 * Sparsity for Efficient Long-Context LLM Inference" (2024), section 3.3.
 *
 * The bound sum_d max(q_d least_d, q_d greatest_d) is a product of two vectors, (q+, q-) with (greatest, least), where q+
 * has what is positive of q and q- what is negative: so the kernel that multiplies queries with keys finds the bounds of
 * all pages, and no loop here runs over their channels. Bounds are kept in f16, as close as that gets.
 */
import type { Kernels, Memory } from '../../kernels/index.ts'
import { f16ToF32, f32ToF16 } from '../../tensor/float16.ts'
import type { LayerShape } from '../contract.ts'
import { ScratchFloats } from '../scratch-floats.ts'
import type { StateVisitor } from '../snapshot/state.ts'

const largestHalf = 65504
/** What the kernel makes of the values beside, which nobody reads. */
const valueDim = 8

/** Bytes of one page of a KV head. */
export function bytesOfBound(headDim: number): number {
  return 2 * 2 * headDim + 4
}

/** Pages in slots of a ring: one that leaves gives its slot to one that comes. */
export class PageBounds {
  readonly #kernels: Kernels
  readonly #shape: LayerShape
  readonly #maxPages: number
  /** `[K, C, 2 D]`: the greatest, then the least numbers. */
  #bounds: Memory
  /** `[K, C]`: added to the bounds; -Infinity: there is nothing to come back. */
  #bias: Memory
  #capacity: number
  /** Slots in use: those from 0 on. */
  #used = 0
  readonly #query: Float32Array
  readonly #output: Float32Array
  /** `[D]` */
  readonly #least: Float32Array
  readonly #greatest: Float32Array
  readonly #logits: ScratchFloats

  constructor(kernels: Kernels, shape: LayerShape, maxPages: number) {
    this.#kernels = kernels
    this.#shape = shape
    this.#maxPages = maxPages
    this.#capacity = Math.min(16, maxPages)
    this.#bounds = kernels.alloc(this.#capacity * this.#rowBytes)
    this.#bias = kernels.alloc(this.#capacity * shape.numKvHeads * 4)
    this.clear()
    this.#query = new Float32Array(shape.numHeads * 2 * shape.headDim)
    this.#output = new Float32Array(shape.numHeads * valueDim)
    this.#least = new Float32Array(shape.headDim)
    this.#greatest = new Float32Array(shape.headDim)
    this.#logits = new ScratchFloats(kernels)
  }

  get #rowBytes(): number {
    return this.#shape.numKvHeads * 4 * this.#shape.headDim
  }

  get bytes(): number {
    return this.#bounds.byteLength + this.#bias.byteLength
  }

  /** C */
  get capacity(): number {
    return this.#capacity
  }

  /** Makes room for so many pages, of which those that are there have numbers from `first` on. */
  reserve(count: number, first: number): void {
    if (count <= this.#capacity) return
    let capacity = this.#capacity
    while (capacity < count) capacity *= 2
    capacity = Math.min(capacity, this.#maxPages)
    const { numKvHeads: K, headDim } = this.#shape
    const [bounds, bias] = [this.#kernels.alloc(capacity * this.#rowBytes), this.#kernels.alloc(capacity * K * 4)]
    bias.f32.fill(Number.NEGATIVE_INFINITY)
    for (let k = 0; k < K; k++) {
      for (let number = first; number < first + this.#capacity; number++) {
        const [from, to] = [k * this.#capacity + (number % this.#capacity), k * capacity + (number % capacity)]
        const size = 2 * headDim
        bounds.u16.set(this.#bounds.u16.subarray(from * size, (from + 1) * size), to * size)
        bias.f32[to] = this.#bias.f32[from] as number
      }
    }
    this.free()
    this.#bounds = bounds
    this.#bias = bias
    for (let number = first; number < first + this.#capacity; number++) {
      this.#used = Math.max(this.#used, (number % capacity) + 1)
    }
    this.#capacity = capacity
  }

  /** @param keys `[P, D]` of a page of a head, as attention reads them */
  set(number: number, head: number, keys: Float32Array): void {
    const D = this.#shape.headDim
    this.#use(number)
    const at = (head * this.#capacity + (number % this.#capacity)) * 2 * D
    const into = this.#bounds.u16.subarray(at, at + 2 * D)
    const [least, greatest] = [this.#least.fill(largestHalf), this.#greatest.fill(-largestHalf)]
    for (let row = 0; row < keys.length; row += D) {
      for (let d = 0; d < D; d++) {
        const value = keys[row + d] as number
        if (value < (least[d] as number)) least[d] = value
        if (value > (greatest[d] as number)) greatest[d] = value
      }
    }
    for (let d = 0; d < D; d++) {
      into[d] = f32ToF16(Math.min(greatest[d] as number, largestHalf))
      into[D + d] = f32ToF16(Math.max(least[d] as number, -largestHalf))
    }
  }

  #use(number: number): void {
    this.#used = Math.max(this.#used, (number % this.#capacity) + 1)
  }

  /** Slots that scores are to be looked at of. */
  get used(): number {
    return this.#used
  }

  /** @param bias the most that is added to the logits of any of its tokens that may come back; -Infinity: there is none */
  setBias(number: number, head: number, bias: number): void {
    this.#bias.f32[head * this.#capacity + (number % this.#capacity)] = bias
  }

  /**
   * The most that any row of each page can score for any of the G queries of a head, `[K, C]` by slot.
   * @param query `[H, D]`, rotated
   */
  of(query: Float32Array): Float32Array {
    const { numHeads: H, numKvHeads: K, headDim: D, scale = 1 / Math.sqrt(D) } = this.#shape
    for (let h = 0; h < H; h++) {
      for (let d = 0; d < D; d++) {
        const value = query[h * D + d] as number
        this.#query[2 * h * D + d] = Math.max(value, 0)
        this.#query[(2 * h + 1) * D + d] = Math.min(value, 0)
      }
    }
    const C = this.#capacity
    const logits = this.#logits.reserve(H * C)
    const rows = { keys: this.#bounds.u16, values: this.#bounds.u16, storage: 'f16', bias: this.#bias.f32 } as const
    this.#kernels.attend({
      ...{ query: this.#query, output: this.#output, logits, numTokens: 1, numHeads: H, numKvHeads: K },
      ...{ headDim: 2 * D, valueDim, scale, firstPosition: 0 },
      segments: [{ ...rows, capacity: C, lengths: new Int32Array(K).fill(this.#used) }],
    })
    return mostOfGroups(this.#logits.reserve(H * C), { K, G: H / K, C, used: this.#used }) // the call may have moved the memory
  }

  visitPage(visitor: StateVisitor, number: number, head: number): void {
    this.#use(number)
    const at = (head * this.#capacity + (number % this.#capacity)) * 4 * this.#shape.headDim
    visitor.bytes(this.#bounds.u8.subarray(at, at + 4 * this.#shape.headDim))
    const halves = this.#bounds.u16.subarray(at / 2, at / 2 + 2 * this.#shape.headDim)
    // A number that is none would make every bound of its page so.
    for (let i = 0; visitor.isReading && i < halves.length; i++) {
      if (!Number.isFinite(f16ToF32(halves[i] as number))) halves[i] = 0
    }
  }

  clear(): void {
    this.#used = 0
    this.#bounds.u16.fill(0)
    this.#bias.f32.fill(Number.NEGATIVE_INFINITY)
  }

  /** For as many pages. */
  copyFrom(other: PageBounds): void {
    this.reserve(other.#capacity, 0)
    this.#bounds.u16.set(other.#bounds.u16)
    this.#bias.f32.set(other.#bias.f32)
    this.#used = other.#used
  }

  free(): void {
    this.#bounds.free()
    this.#bias.free()
  }

  dispose(): void {
    this.free()
    this.#logits.free()
  }
}

interface Groups {
  readonly K: number
  readonly G: number
  readonly C: number
  /** Entries of each list that count. */
  readonly used: number
}

/** The most of G lists, `[K, G, C]` to `[K, C]` at the beginning of the same memory. */
function mostOfGroups(values: Float32Array, { K, G, C, used }: Groups): Float32Array {
  for (let k = 0; k < K; k++) {
    const most = values.subarray(k * C, k * C + used)
    for (let g = 0; g < G; g++) {
      const from = (k * G + g) * C
      const own = values.subarray(from, from + used)
      if (g === 0) most.set(own)
      else for (let c = 0; c < used; c++) most[c] = Math.max(most[c] as number, own[c] as number)
    }
  }
  return values.subarray(0, K * C)
}

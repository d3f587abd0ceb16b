/**
 * One layer of one sequence in a fixed number of rows: for each KV head, W tokens of the stream, chosen by a static
 * score (docs/caches.md). An evicted token can never come back, so every key has one lifetime and a chunk of T tokens
 * gives what T single tokens give: old rows live until their death, new tokens from birth to death.
 */
import { KvasirError } from '../../tensor/error.ts'
import type { CacheInfo, LayerCache, LayerExplanation, LayerInput } from '../contract.ts'
import { recallingTokens } from '../hierarchical/page-archive.ts'
import { bytesOfTokens, checkInput, type Queries, tokenOf, visitConfig } from '../layout.ts'
import type { Room } from '../room.ts'
import type { StateVisitor } from '../snapshot/state.ts'
import { KeptAttention } from './attention.ts'
import { KeptIntake, type NewInput } from './intake.ts'
import { copyParts, createParts, freeParts, type KeptConfig, type KeptParts } from './parts.ts'

export interface BoundedCacheOptions extends KeptConfig {
  /** Whether importance is added to the logits (default true). */
  readonly addImportance?: boolean
}

export class BoundedCache implements LayerCache {
  readonly rotates: boolean
  /** Short chunks see what comes back, long ones don't. */
  readonly dependsOnChunks: boolean
  readonly #options: BoundedCacheOptions
  readonly #parts: KeptParts
  readonly #intake: KeptIntake
  readonly #attention: KeptAttention
  readonly #needsImportance: boolean
  #seen = 0

  constructor(options: BoundedCacheOptions, hasImportance: boolean, given?: Partial<KeptParts>) {
    const { rotates = false, rankBy } = options
    const usesBias = hasImportance && options.addImportance !== false
    this.#options = options
    this.rotates = rotates
    this.#parts = createParts(options, usesBias, given)
    this.#intake = new KeptIntake(options, this.#parts)
    this.#attention = new KeptAttention(options, this.#parts)
    this.#needsImportance = usesBias || rankBy === 'importance'
    this.dependsOnChunks = this.#parts.archive !== undefined
  }

  attend(input: LayerInput, output: Float32Array): void {
    const { numTokens } = input
    this.#check(input, output)
    if (numTokens === 0) return
    if (numTokens === 1) this.#attendOne(input, output)
    else if (this.#intake.changesRanks(input) || this.#recalls(numTokens)) this.#attendSingly(input, output)
    else this.#attendChunk(input, output)
  }

  /** Short chunks are questions, which pages are recalled for; longer ones are read as though nothing came back. */
  #recalls(numTokens: number): boolean {
    return this.#parts.archive !== undefined && numTokens <= recallingTokens
  }

  /** Takes tokens in without attending. */
  append(input: NewInput): void {
    this.#check(input)
    if (input.numTokens === 0) return
    const isSingle = input.numTokens > 1 && this.#intake.changesRanks(input)
    if (isSingle) this.#intake.prepare(input, this.#seen)
    else this.#take(input)
    for (let t = 0; isSingle && t < input.numTokens; t++) this.#take(tokenOf(this.#options.shape, input, t))
  }

  #check(input: NewInput & { readonly query?: Float32Array }, output?: Float32Array): void {
    checkInput(this.#options, this.#needsImportance, input, output)
    this.#parts.axis?.use(input.rotary)
  }

  #attendSingly(input: LayerInput, output: Float32Array): void {
    const { shape } = this.#options
    const size = shape.numHeads * shape.valueDim
    this.#intake.prepare(input, this.#seen)
    for (let t = 0; t < input.numTokens; t++) {
      this.#attendOne(tokenOf(shape, input, t), output.subarray(t * size, (t + 1) * size))
    }
  }

  #take(input: NewInput): void {
    this.#intake.take(input, this.#seen)
    this.#seen += input.numTokens
  }

  /** Decode: the cache is brought up to date first, then holds exactly what the new token sees. */
  #attendOne(input: LayerInput, output: Float32Array): void {
    this.#take(input)
    this.#attention.attendKept(input, output, this.#seen)
  }

  attendAgain(input: Queries, output: Float32Array): void {
    checkInput(this.#options, false, input, output, true)
    this.#parts.axis?.use(input.rotary)
    if (input.numTokens === 1) {
      this.#attention.attendKept(input, output, this.#seen)
      return
    }
    throw new KvasirError(
      'unsupported',
      'cache',
      'expected single tokens for shared keys and values in a bounded cache',
    )
  }

  /** Prefill: attends over old rows and the chunk, each with its lifetimes, then keeps the survivors. */
  #attendChunk(input: LayerInput, output: Float32Array): void {
    const first = this.#seen
    this.#intake.reserve(input.numTokens)
    const turn = this.#parts.axis?.forNext(input.numTokens)
    const chunk = this.#attention.openChunk(input, first, turn)
    try {
      const plan = this.#intake.choose(input, first)
      this.#seen += input.numTokens
      this.#attention.attendChunk(input, output, chunk, { plan, first, turn })
      this.#intake.settle(input, first, plan, turn)
    } finally {
      chunk.store.free()
    }
  }

  positions(head: number): number[] {
    const { positions, lengths, window } = this.#parts.state.view
    const start = head * window
    return Array.from(positions.subarray(start, start + (lengths[head] as number))).sort((a, b) => a - b)
  }

  info(): CacheInfo {
    const { store, state, bias, archive } = this.#parts
    const keptTokens = Math.max(...state.view.lengths)
    return {
      keptTokens,
      seenTokens: this.#seen,
      capacityUtilization: keptTokens / this.#options.window,
      bytes: store.bytes + (bias?.byteLength ?? 0) + (archive?.bytes ?? 0),
      fullBytes: bytesOfTokens(this.#options, this.#seen, bias !== undefined),
      evictedTokens: this.#seen - keptTokens,
    }
  }

  explain(): LayerExplanation {
    const { state, history, archive } = this.#parts
    const { positions, scores, lengths, window } = state.view
    const isByAge = this.#options.rankBy === 'recency'
    const heads = Array.from(lengths, (length, k) => {
      const rows = Array.from({ length }, (_, row) => k * window + row)
      rows.sort((a, b) => (positions[a] as number) - (positions[b] as number))
      return {
        positions: rows.map((at) => positions[at] as number),
        scores: rows.map((at) => (isByAge ? null : (scores[at] as number))),
      }
    })
    return { heads, evicted: history?.evictions(isByAge) ?? [], ...(archive && { recall: archive.counts }) }
  }

  visitState(visitor: StateVisitor): void {
    const { rankBy, window } = this.#options
    const { store, state, bias, axis, history, archive } = this.#parts
    visitor.fixed('cache', 'bounded')
    visitConfig(visitor, this.#options)
    visitor.fixed('ranked by', typeof rankBy === 'function' ? 'score' : rankBy)
    visitor.fixed('importance', bias !== undefined)
    this.#seen = visitor.integer('tokens', this.#seen, 0)
    state.visitState(visitor, this.#seen)
    const { lengths } = state.view
    store.visitRows(visitor, lengths)
    for (let k = 0; bias && k < lengths.length; k++) {
      visitor.numbers(bias.f32.subarray(k * window, k * window + (lengths[k] as number)))
    }
    axis?.visitState(visitor, lengths)
    history?.visitState(visitor)
    visitor.fixed('recalls', archive !== undefined)
    archive?.visitState(visitor, (head) => this.positions(head))
  }

  roomFor(numTokens: number, room: Room): void {
    this.#intake.roomFor(numTokens, room)
  }

  checkIntegrity(): void {
    this.#parts.store.checkIntegrity()
  }

  reset(): void {
    const { store, state, axis, history, archive } = this.#parts
    state.reset()
    store.release(state.view.lengths)
    store.rewind(0)
    axis?.reset()
    history?.clear()
    archive?.reset()
    this.#seen = 0
  }

  fork(): BoundedCache {
    const { store, state, bias, archive } = this.#parts
    const given = { store: store.fork(state.view.lengths), archive: archive?.fork() }
    const copy = new BoundedCache(this.#options, bias !== undefined, given)
    copyParts(this.#parts, copy.#parts)
    copy.#seen = this.#seen
    return copy
  }

  dispose(): void {
    freeParts(this.#parts)
  }
}

/** A batch as a flat list of tokens: checks what came, and splits it into steps of bounded size. */
import type { KvCache } from '../cache/contract.ts'
import { checkInteger, checkKeys, describe } from '../tensor/check.ts'
import { invalidArgument } from '../tensor/error.ts'
import type { BatchEntry } from './contract.ts'

/** Some tokens of one sequence inside a step: rows [start, end) of the flat list. */
export interface StepSlice {
  readonly cache: KvCache
  readonly start: number
  readonly end: number
  /** Tokens that the sequence has when the whole text of its entry is read: what position tables go by. */
  readonly length: number
}

/** Tokens that go through the model together. */
export interface Step {
  /** `[T]` */
  readonly tokens: Int32Array
  readonly slices: readonly StepSlice[]
  /** Rows of this step whose logits are wanted ... */
  readonly rows: readonly number[]
  /** ... and the row of the result that each becomes; ascending. */
  readonly slots: readonly number[]
}

export interface BatchLimits {
  readonly vocabSize: number
  readonly numLayers: number
  readonly chunkSize: number
  /** No step holds tokens of two sequences. */
  readonly isAlone?: boolean
}

/** Positions are 32-bit in the kernels. */
const maxPosition = 2 ** 31 - 2

/**
 * @throws KvasirError `invalid-argument` naming what is wrong: an empty batch or entry, a token outside the
 * vocabulary, a cache that comes twice or is of another model
 */
export function planSteps(batch: readonly BatchEntry[], limits: BatchLimits): { steps: Step[]; numRows: number } {
  if (!Array.isArray(batch) || batch.length === 0) {
    throw invalidArgument('runtime', `expected at least one entry in the batch, got ${describe(batch)}`)
  }
  for (const entry of batch) checkEntry(entry, limits)
  if (new Set(batch.map(({ cache }) => cache)).size < batch.length) {
    throw invalidArgument('runtime', 'expected a cache of its own for each entry, got one twice')
  }
  const steps: Step[] = []
  const planner = new StepPlanner(limits.chunkSize, steps)
  let numRows = 0
  for (const entry of batch) {
    numRows = planner.add(entry, numRows)
    if (limits.isAlone) planner.finish()
  }
  planner.finish()
  return { steps, numRows }
}

/** Throws unless all are integers in [0, vocabSize). */
export function checkTokens(tokens: unknown, vocabSize: number): asserts tokens is Int32Array | readonly number[] {
  if (!Array.isArray(tokens) && !(tokens instanceof Int32Array)) {
    throw invalidArgument('runtime', `expected an array of tokens, got ${describe(tokens)}`)
  }
  if (tokens.length === 0) throw invalidArgument('runtime', 'expected at least one token, got none')
  for (let i = 0; i < tokens.length; i++) {
    const token: unknown = tokens[i]
    if (Number.isInteger(token) && (token as number) >= 0 && (token as number) < vocabSize) continue
    throw invalidArgument('runtime', `expected tokens in 0..${vocabSize - 1}, got ${describe(token)} at index ${i}`)
  }
}

function checkEntry(entry: BatchEntry, { vocabSize, numLayers }: BatchLimits): void {
  checkKeys('runtime', 'a batch entry', entry, ['cache', 'tokens', 'logitsOf', 'following'])
  const { cache, tokens, logitsOf = [], following = 0 } = entry
  if (cache?.numLayers !== numLayers) {
    throw invalidArgument('runtime', `expected a cache of ${numLayers} layers, got ${describe(cache?.numLayers)}`)
  }
  checkTokens(tokens, vocabSize)
  checkInteger('runtime', 'following', following, 0)
  if (cache.seenTokens + tokens.length + following > maxPosition) {
    throw invalidArgument('runtime', `expected at most ${maxPosition} tokens in a sequence, got more`)
  }
  for (const index of logitsOf) checkInteger('runtime', 'logitsOf', index, 0, tokens.length - 1)
}

/** Fills one step after the other. */
class StepPlanner {
  readonly #chunkSize: number
  readonly #steps: Step[]
  #tokens: number[] = []
  #slices: StepSlice[] = []
  #wanted: { row: number; slot: number }[] = []

  constructor(chunkSize: number, steps: Step[]) {
    this.#chunkSize = chunkSize
    this.#steps = steps
  }

  /** Returns the number of result rows so far. */
  add({ cache, tokens, logitsOf = [tokens.length - 1], following = 0 }: BatchEntry, firstSlot: number): number {
    const length = cache.seenTokens + tokens.length + following
    for (let done = 0; done < tokens.length; ) {
      const start = this.#tokens.length
      const count = Math.min(tokens.length - done, this.#chunkSize - start)
      for (let i = 0; i < count; i++) this.#tokens.push(tokens[done + i] as number)
      this.#slices.push({ cache, start, end: start + count, length })
      for (const [i, index] of logitsOf.entries()) {
        const row = start + index - done
        if (index >= done && index < done + count) this.#wanted.push({ row, slot: firstSlot + i })
      }
      done += count
      if (this.#tokens.length === this.#chunkSize) this.finish()
    }
    return firstSlot + logitsOf.length
  }

  finish(): void {
    if (this.#tokens.length === 0) return
    const wanted = this.#wanted.sort((a, b) => a.slot - b.slot)
    const [rows, slots] = [wanted.map(({ row }) => row), wanted.map(({ slot }) => slot)]
    this.#steps.push({ tokens: Int32Array.from(this.#tokens), slices: this.#slices, rows, slots })
    this.#tokens = []
    this.#slices = []
    this.#wanted = []
  }
}

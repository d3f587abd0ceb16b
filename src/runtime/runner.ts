/**
 * One step through the model: segment, attention, segment, ..., head. Dense segments see a flat list of tokens;
 * attention runs per sequence, against that sequence's cache.
 */
import { Tensor } from 'onnxruntime-node'
import type { Kernels } from '../kernels/contract.ts'
import type { AttentionNode, CutModel, ModelSpec } from '../onnx/index.ts'
import { fillRotaryTable, type RotaryEncoding } from '../positions/index.ts'
import type { Step } from './batch.ts'
import { BufferPool } from './buffer-pool.ts'
import type { SegmentSession, Values } from './session.ts'

/** Rows of logits that are computed at once. */
const headRows = 128

export interface RunnerParts {
  readonly spec: ModelSpec
  readonly cut: CutModel
  /** L + 1 segments and the head. */
  readonly sessions: readonly SegmentSession[]
  readonly kernels: Kernels
  /** Of each attention node; undefined where positions do nothing. */
  readonly rotary: readonly (RotaryEncoding | undefined)[]
  /** Names of the token input and of the residual stream before the head. */
  readonly ends: { readonly tokens: string; readonly hidden: string; readonly logits: string }
}

export class Runner {
  readonly #parts: RunnerParts
  readonly #pool = new BufferPool()
  readonly #lastUse: ReadonlyMap<string, number>

  constructor(parts: RunnerParts) {
    this.#parts = parts
    this.#lastUse = lastUses(parts)
  }

  /**
   * Appends the step's tokens to their caches and writes the wanted rows of `logits`, `[rows of the batch, vocabSize]`.
   * When no row is wanted, the part after the last attention is not run at all.
   */
  async run(step: Step, logits: Float32Array): Promise<void> {
    const { cut, sessions, ends } = this.#parts
    const numTokens = step.tokens.length
    const rotations = this.#rotations(step)
    const values: Values = new Map([[ends.tokens, new Tensor('int32', step.tokens, [numTokens])]])
    try {
      for (const [layer, attention] of cut.attention.entries()) {
        await sessions[layer]!.run(values, numTokens, this.#pool)
        this.#release(values, 2 * layer)
        this.#attend(attention, layer, step, values, rotations[layer])
        this.#release(values, 2 * layer + 1)
      }
      if (step.rows.length > 0) await this.#finish(step, values, logits)
    } finally {
      for (const tensor of values.values()) this.#pool.give(tensor.data as Float32Array)
      for (const rotation of new Set(rotations)) {
        if (!rotation) continue
        this.#pool.give(rotation.cos)
        this.#pool.give(rotation.sin)
      }
    }
  }

  /** The last segment and the head, on the wanted rows only. */
  async #finish({ tokens, rows, slots }: Step, values: Values, logits: Float32Array): Promise<void> {
    const { sessions, cut, spec, ends } = this.#parts
    const isAll = rows.length === tokens.length && rows.every((row, i) => row === i)
    if (!isAll) for (const [name, tensor] of values) this.#replace(values, name, this.#selectRows(tensor, rows))
    await sessions[cut.attention.length]!.run(values, rows.length, this.#pool)
    const hidden = values.get(ends.hidden)!
    for (const { start, count } of runsOf(slots)) {
      const part = sliceRows(hidden, start, count)
      const slot = slots[start]!
      const target = logits.subarray(slot * spec.vocabSize, (slot + count) * spec.vocabSize)
      const output = new Map([[ends.logits, new Tensor('float32', target, [count, spec.vocabSize])]])
      await sessions.at(-1)!.run(new Map([[ends.hidden, part]]), count, this.#pool, output)
    }
  }

  #attend(node: AttentionNode, layer: number, step: Step, values: Values, rotation: Rotation | undefined): void {
    const { kernels } = this.#parts
    const { numHeads, numKvHeads, headDim, valueDim = headDim } = node
    const numTokens = step.tokens.length
    const query = this.#dataToChange(values, node.query, layer)
    const key = this.#dataToChange(values, node.key!, layer)
    const value = values.get(node.value!)!.data as Float32Array
    const importance = node.importance ? (values.get(node.importance)!.data as Float32Array) : undefined
    if (rotation) {
      const turn = { ...rotation, numTokens, headDim }
      kernels.rotate({ ...turn, vectors: query, numHeads })
      kernels.rotate({ ...turn, vectors: key, numHeads: numKvHeads })
    }
    const output = this.#pool.tensor([numTokens, numHeads * valueDim])
    values.set(node.output, output)
    for (const { cache, start, end } of step.slices) {
      const rows = (data: Float32Array, size: number): Float32Array => data.subarray(start * size, end * size)
      cache.layer(layer).attend(
        {
          query: rows(query, numHeads * headDim),
          key: rows(key, numKvHeads * headDim),
          value: rows(value, numKvHeads * valueDim),
          ...(importance && { importance: rows(importance, numKvHeads) }),
          numTokens: end - start,
        },
        rows(output.data as Float32Array, numHeads * valueDim),
      )
    }
  }

  /** Rotation works in place, so a value that later nodes read too is copied. */
  #dataToChange(values: Values, name: string, layer: number): Float32Array {
    const data = values.get(name)!.data as Float32Array
    return this.#lastUse.get(name)! > 2 * layer + 1 ? data.slice() : data
  }

  /** cos and sin of every token's position: the number of tokens its sequence had before. */
  #rotations(step: Step): (Rotation | undefined)[] {
    const known = new Map<RotaryEncoding, Rotation>()
    return this.#parts.rotary.map((rotary) => {
      const rotation = rotary && (known.get(rotary) ?? this.#table(rotary, step))
      if (rotary && rotation) known.set(rotary, rotation)
      return rotation
    })
  }

  #table(rotary: RotaryEncoding, { tokens, slices }: Step): Rotation {
    const { pairs: rotaryPairs, pairing } = rotary
    const size = tokens.length * rotaryPairs
    const [cos, sin] = [this.#pool.take(size), this.#pool.take(size)]
    for (const { cache, start, end } of slices) {
      const first = cache.seenTokens
      const positions = Float64Array.from({ length: end - start }, (_, i) => first + i)
      const rows = (data: Float32Array): Float32Array => data.subarray(start * rotaryPairs, end * rotaryPairs)
      // Some tables depend on the length of the sequence, never on what else is in the batch.
      fillRotaryTable(rotary.at(first + positions.length), positions, rows(cos), rows(sin))
    }
    return { cos, sin, rotaryPairs, isInterleaved: pairing === 'interleaved' }
  }

  /** Gives back the memory of values that nothing after `point` reads. */
  #release(values: Values, point: number): void {
    for (const [name, tensor] of values) {
      if ((this.#lastUse.get(name) ?? -1) > point) continue
      this.#pool.give(tensor.data as Float32Array)
      values.delete(name)
    }
  }

  #replace(values: Values, name: string, tensor: Tensor): void {
    this.#pool.give(values.get(name)!.data as Float32Array)
    values.set(name, tensor)
  }

  #selectRows(tensor: Tensor, rows: readonly number[]): Tensor {
    const size = tensor.size / tensor.dims[0]!
    const dims = [rows.length, ...tensor.dims.slice(1)]
    if (tensor.type === 'int32') {
      const tokens = tensor.data as Int32Array
      return new Tensor(
        'int32',
        Int32Array.from(rows, (row) => tokens[row]!),
        dims,
      )
    }
    const data = this.#pool.take(rows.length * size)
    const source = tensor.data as Float32Array
    for (const [i, row] of rows.entries()) data.set(source.subarray(row * size, (row + 1) * size), i * size)
    return new Tensor('float32', data, dims)
  }
}

interface Rotation {
  /** `[T, R]` */
  readonly cos: Float32Array
  /** `[T, R]` */
  readonly sin: Float32Array
  readonly rotaryPairs: number
  readonly isInterleaved: boolean
}

/** When each value is read last: segment s is point 2 s, attention s is 2 s + 1, the head comes last. */
function lastUses({ cut, ends }: RunnerParts): Map<string, number> {
  const uses = new Map<string, number>()
  for (const [s, { inputs }] of cut.segments.entries()) for (const name of inputs) raise(uses, name, 2 * s)
  for (const [s, { query, key, value, importance }] of cut.attention.entries()) {
    for (const name of [query, key, value, importance]) if (name) raise(uses, name, 2 * s + 1)
  }
  raise(uses, ends.hidden, 2 * cut.segments.length)
  return uses
}

function raise(uses: Map<string, number>, name: string, point: number): void {
  uses.set(name, Math.max(uses.get(name) ?? -1, point))
}

/** Stretches of consecutive slots, at most `headRows` long. */
function* runsOf(slots: readonly number[]): Generator<{ start: number; count: number }> {
  for (let start = 0; start < slots.length; ) {
    let count = 1
    while (count < headRows && slots[start + count] === slots[start]! + count) count++
    yield { start, count }
    start += count
  }
}

/** Rows [start, start + count) of a `[T, n]` tensor, without a copy. */
function sliceRows(tensor: Tensor, start: number, count: number): Tensor {
  const size = tensor.size / tensor.dims[0]!
  const data = (tensor.data as Float32Array).subarray(start * size, (start + count) * size)
  return new Tensor('float32', data, [count, ...tensor.dims.slice(1)])
}

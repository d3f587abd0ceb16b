/**
 * One step through the model: segment, attention, segment, ..., head. Dense segments see a flat list of tokens;
 * attention runs per sequence, against that sequence's cache.
 */
import { Tensor } from 'onnxruntime-node'
import type { LayerRotary } from '../cache/contract.ts'
import { holdRoom } from '../cache/room.ts'
import type { Kernels } from '../kernels/contract.ts'
import type { AttentionNode, CutModel, GraphEnds, ModelSpec } from '../onnx/index.ts'
import type { Step } from './batch.ts'
import { BufferPool } from './buffer-pool.ts'
import { layerRotary, type RotarySource } from './rotation.ts'
import { type Declared, declaredValues, rowAxis, selectRows, shapeOfRows, sliceRows } from './rows.ts'
import { cacheIndices, lastUses, runsOf } from './runner-plan.ts'
import type { SegmentSession, Values } from './session.ts'
import { type Rotation, rotateHeads, stepRotations } from './step-rotation.ts'
import { StepStates } from './step-states.ts'

/** TensorProto.DataType */
const int64 = 7

export interface RunnerParts {
  readonly spec: Pick<ModelSpec, 'vocabSize'>
  readonly cut: CutModel
  /** L + 1 segments and the head. */
  readonly sessions: readonly SegmentSession[]
  readonly kernels: Kernels
  /** Of each attention node; undefined where positions do nothing. */
  readonly rotary: readonly (RotarySource | undefined)[]
  /** Names of the inputs, of the residual stream before the head, and of the output. */
  readonly ends: GraphEnds
}

export class Runner {
  readonly #parts: RunnerParts
  readonly #pool = new BufferPool()
  readonly #lastUse: ReadonlyMap<string, number>
  readonly #declared: ReadonlyMap<string, Declared>
  /** Of each attention node: which cache of a sequence it uses. */
  readonly #caches: readonly number[]
  /** Of each attention node: what caches that rotate by themselves are given. */
  readonly #rotary: readonly (LayerRotary | null)[]
  /** Whether everything that the last segment reads has rows of tokens, so that it can be run on some of them. */
  readonly #canSelect: boolean
  /** For graphs whose sequences run one at a time. */
  readonly states: StepStates | undefined

  constructor(parts: RunnerParts) {
    this.#parts = parts
    this.#lastUse = lastUses(parts.cut, parts.ends)
    this.#declared = declaredValues(parts.cut)
    this.#caches = cacheIndices(parts.cut.attention)
    // One for all layers that are turned alike: caches remember what it gives.
    const made = new Map(parts.rotary.map((source) => [source, source ? layerRotary(source) : null]))
    this.#rotary = parts.rotary.map((source) => made.get(source) ?? null)
    this.states = parts.ends.alone && new StepStates(parts.ends.alone)
    const last = parts.cut.segments.at(-1)!.inputs
    this.#canSelect = !this.states && last.every((name) => this.#axis(name) !== undefined)
  }

  /**
   * Appends the step's tokens to their caches and writes the wanted rows of `logits`, `[rows of the batch, vocabSize]`.
   * When no row is wanted, the part after the last attention is not run at all.
   * @throws KvasirError `out-of-memory` when pages of a pool don't suffice: before any layer has taken a token in
   */
  async run(step: Step, logits: Float32Array): Promise<void> {
    const { cut, sessions } = this.#parts
    const numTokens = step.tokens.length
    const rotations = stepRotations(this.#parts.rotary, step, this.#pool)
    const values = this.#inputs(step)
    const room = holdRoom(step.slices.map(({ cache, start, end }) => ({ cache, numTokens: end - start })))
    try {
      for (const [layer, attention] of cut.attention.entries()) {
        await sessions[layer]!.run(values, numTokens, this.#pool)
        this.#release(values, 2 * layer)
        room.use(() => this.#attend(attention, layer, step, values, rotations[layer]))
        this.#release(values, 2 * layer + 1)
      }
      // What follows the last attention may have states, too.
      if (step.rows.length > 0 || this.states) await this.#finish(step, values, logits)
      this.states?.keep(step, values)
    } finally {
      room.end()
      for (const [name, tensor] of values) this.#giveBack(name, tensor)
      for (const rotation of new Set(rotations)) {
        if (!rotation) continue
        this.#pool.give(rotation.cos)
        this.#pool.give(rotation.sin)
      }
    }
  }

  /** Tokens and, where the graph wants them, positions, in the types and shapes that the graph declares. */
  #inputs(step: Step): Values {
    const { tokens, slices } = step
    const { ends } = this.#parts
    const values: Values = new Map([[ends.tokens, this.#integers(ends.tokens, tokens)]])
    for (const [name, tensor] of this.states?.inputs(step) ?? []) values.set(name, tensor)
    if (ends.positions === undefined) return values
    const positions = new Float64Array(tokens.length)
    for (const { cache, start, end } of slices) {
      for (let t = start; t < end; t++) positions[t] = cache.seenTokens + t - start
    }
    return values.set(ends.positions, this.#integers(ends.positions, positions))
  }

  #integers(name: string, numbers: Int32Array | Float64Array): Tensor {
    const { type, shape } = this.#declared.get(name) ?? { type: 0, shape: ['T'] as const }
    const dims = shapeOfRows(shape, numbers.length) ?? [numbers.length]
    if (type === int64) return new Tensor('int64', BigInt64Array.from(numbers as ArrayLike<number>, BigInt), dims)
    return new Tensor('int32', Int32Array.from(numbers), dims)
  }

  /** The last segment and the head, on the wanted rows only. */
  async #finish({ tokens, rows, slots }: Step, values: Values, logits: Float32Array): Promise<void> {
    const { sessions, cut, spec, ends } = this.#parts
    const isAll = rows.length === tokens.length && rows.every((row, i) => row === i)
    const selectEarly = !isAll && this.#canSelect
    if (selectEarly) this.#selectRows(values, cut.segments.at(-1)!.inputs, rows)
    await sessions[cut.attention.length]!.run(values, selectEarly ? rows.length : tokens.length, this.#pool)
    if (!isAll && !selectEarly && rows.length > 0) this.#selectRows(values, [ends.hidden], rows)
    if (rows.length === 0) return
    const hidden = values.get(ends.hidden)!
    const axis = this.#axis(ends.hidden) ?? 0
    const shape = this.#declared.get(ends.logits)?.shape ?? ['T', spec.vocabSize]
    for (const { start, count } of runsOf(slots)) {
      const part = sliceRows(hidden, axis, start, count)
      const slot = slots[start]!
      const target = logits.subarray(slot * spec.vocabSize, (slot + count) * spec.vocabSize)
      const dims = shapeOfRows(shape, count) ?? [count, spec.vocabSize]
      const output = new Map([[ends.logits, new Tensor('float32', target, dims)]])
      await sessions.at(-1)!.run(new Map([[ends.hidden, part]]), count, this.#pool, output)
    }
  }

  #attend(node: AttentionNode, layer: number, step: Step, values: Values, rotation: Rotation | undefined): void {
    const { kernels } = this.#parts
    const { numHeads, numKvHeads, headDim, valueDim = headDim } = node
    const numTokens = step.tokens.length
    const turn = (name: string, heads: number): Float32Array => {
      const vectors = this.#dataToChange(values, name, layer, rotation !== undefined)
      if (rotation) rotateHeads(kernels, step, this.#caches[layer]!, rotation, { vectors, headDim, numHeads: heads })
      return vectors
    }
    const data = (name: string): Float32Array => values.get(name)!.data as Float32Array
    const query = turn(node.query, numHeads)
    const key = node.key && turn(node.key, numKvHeads)
    const value = node.value && data(node.value)
    const importance = node.importance && data(node.importance)
    const shape = this.#declared.get(node.output)?.shape
    const dims = (shape && shapeOfRows(shape, numTokens)) ?? [numTokens, numHeads * valueDim]
    const output = this.#pool.tensor(dims)
    values.set(node.output, output)
    for (const { cache, start, end, length } of step.slices) {
      const rows = (all: Float32Array, size: number): Float32Array => all.subarray(start * size, end * size)
      const target = rows(output.data as Float32Array, numHeads * valueDim)
      const own = cache.layer(this.#caches[layer]!)
      const source = this.#rotary[layer]
      const rotary = own.rotates ? { rotary: source ? { ...source, textLength: length } : null } : {}
      const queries = { query: rows(query, numHeads * headDim), numTokens: end - start, ...rotary }
      if (!key || !value) own.attendAgain(queries, target)
      else {
        const rest = {
          key: rows(key, numKvHeads * headDim),
          value: rows(value, numKvHeads * valueDim),
          ...(importance && { importance: rows(importance, numKvHeads) }),
        }
        own.attend({ ...queries, ...rest }, target)
      }
    }
  }

  /** Rotation works in place, so a value that later nodes read too is copied. */
  #dataToChange(values: Values, name: string, layer: number, isChanged: boolean): Float32Array {
    const data = values.get(name)!.data as Float32Array
    return isChanged && this.#lastUse.get(name)! > 2 * layer + 1 ? data.slice() : data
  }

  /** Gives back the memory of values that nothing after `point` reads. */
  #release(values: Values, point: number): void {
    for (const [name, tensor] of values) {
      if ((this.#lastUse.get(name) ?? -1) > point) continue
      if (this.states?.isKept(name)) continue
      this.#giveBack(name, tensor)
      values.delete(name)
    }
  }

  #giveBack(name: string, { data }: Tensor): void {
    if (!this.states?.isKept(name)) this.#pool.give(data as Float32Array)
  }

  /** Replaces values by some of their rows. */
  #selectRows(values: Values, names: readonly string[], rows: readonly number[]): void {
    for (const name of names) {
      const tensor = values.get(name)!
      const axis = this.#axis(name) ?? 0
      const size = tensor.size / tensor.dims[axis]!
      const target = tensor.type === 'float32' ? this.#pool.take(rows.length * size) : undefined
      values.set(name, selectRows(tensor, axis, rows, target))
      this.#pool.give(tensor.data as Float32Array)
    }
  }

  #axis(name: string): number | undefined {
    return rowAxis(this.#declared.get(name)?.shape)
  }
}

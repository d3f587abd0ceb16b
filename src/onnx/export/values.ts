/** Values of the graph that is exported, as the new graph has them: f32 or f16, constant or computed. */
import type { Checkpoint } from '../checkpoint.ts'
import { producersOf } from '../graph-walk.ts'
import type { TensorEntry } from '../safetensors.ts'
import { dataTypes, type OnnxNode, type OnnxTensor } from '../schema.ts'
import type { GraphWriter } from './graph-writer.ts'
import { type FloatType, planFloats } from './weight-plan.ts'

/** A weight of the checkpoint, and what is added to it. */
export interface Stored {
  readonly entry: TensorEntry
  readonly offset: number
}

export class Values {
  readonly #checkpoint: Checkpoint
  readonly #graph: GraphWriter
  readonly #type: FloatType
  readonly #producers: ReadonlyMap<string, OnnxNode>
  readonly #initializers: ReadonlyMap<string, OnnxTensor>
  /** Values of the old graph that have another name in the new one. */
  readonly #renamed = new Map<string, string>()
  /** f16 values that are known under the name of their f32 version. */
  readonly #halves = new Map<string, string>()

  /** @param type of products and attention */
  constructor(checkpoint: Checkpoint, graph: GraphWriter, type: FloatType) {
    this.#checkpoint = checkpoint
    this.#graph = graph
    this.#type = type
    this.#producers = producersOf(checkpoint.model.graph!)
    this.#initializers = new Map(checkpoint.model.graph!.initializer.map((tensor) => [tensor.name!, tensor]))
  }

  producer(name: string): OnnxNode | undefined {
    return this.#producers.get(name)
  }

  /** `[L]` of a constant of integers. */
  integers(name: string): number[] {
    return this.#initializers.get(name)!.int64Data.map(Number)
  }

  rename(name: string, to: string): void {
    this.#renamed.set(name, to)
  }

  /** Says that `half` is the f16 version of a value; the f32 version is written where someone asks for it. */
  setHalf(name: string, half: string): void {
    this.#halves.set(name, half)
  }

  /** The f32 version. */
  get(name: string): string {
    const constant = this.#initializers.get(name)
    if (constant && constant.externalData.length === 0) return this.#graph.constant(constant)
    const renamed = this.#renamed.get(name)
    if (renamed !== undefined) return this.get(renamed)
    const half = this.#halves.get(name)
    if (half === undefined) return name
    return this.#graph.once(`widen ${name}`, () => this.#cast(half, name, dataTypes.float))
  }

  /** The version that products and attention take: f16 where they are f16. */
  getOperand(name: string): string {
    if (this.#type === 'f32') return this.get(name)
    const half = this.#halves.get(name)
    if (half !== undefined) return half
    const value = this.get(name)
    return this.#graph.once(`narrow ${value}`, () => this.#cast(value, `${value}/f16`, dataTypes.float16))
  }

  /** A weight behind a value: directly, widened, or with a number added. */
  stored(name: string): Stored | undefined {
    const { externalData = [] } = this.#initializers.get(name) ?? {}
    const entry = externalData.length > 0 ? this.#checkpoint.weights.get(name) : undefined
    if (entry) return { entry, offset: 0 }
    const node = this.#producers.get(name)
    if (node?.opType !== 'Cast' && node?.opType !== 'Add') return undefined
    const stored = this.stored(node.input[0]!)
    if (!stored || node.opType === 'Cast') return stored
    const [added] = this.#initializers.get(node.input[1]!)?.floatData ?? []
    return added === undefined ? undefined : { ...stored, offset: stored.offset + added }
  }

  /** The weight behind a value, in the new graph. */
  weight(name: string, type: FloatType): string {
    const { entry, offset } = this.stored(name)!
    return this.#graph.weight(planFloats(weightName(entry, type), entry, { type, offset }))
  }

  #cast(value: string, output: string, to: number): string {
    return this.#graph.node('Cast', [value], output, { attributes: { to: { int: to } } })
  }
}

export function weightName({ name }: TensorEntry, type: FloatType): string {
  return type === 'f16' ? `${name}.f16` : name
}

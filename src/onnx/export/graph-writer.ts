/** Collects nodes, small constants and planned weights of an exported graph; every name is made once. */
import { type AttributeValue, toAttribute, valueInfo } from '../builder.ts'
import { make } from '../codec.ts'
import { dataTypes, type OnnxModel, type OnnxNode, type OnnxTensor } from '../schema.ts'
import type { WeightPlan } from './weight-plan.ts'

/** Axes of an input or output: a size or a name. */
export type Axes = readonly (number | string)[]

export interface NodeOptions {
  readonly domain?: string
  readonly attributes?: Readonly<Record<string, AttributeValue>>
}

export class GraphWriter {
  readonly #graph = make('Graph', { name: 'model' })
  readonly #known = new Map<string, string>()
  readonly #plans: WeightPlan[] = []

  input(name: string, dataType: number, axes: Axes): string {
    this.#graph.input.push(valueInfo(name, dataType, axes))
    return name
  }

  output(name: string, dataType: number, axes: Axes): void {
    this.#graph.output.push(valueInfo(name, dataType, axes))
  }

  /** Adds a node whose name is that of its first output, and returns that. */
  node(
    opType: string,
    inputs: readonly string[],
    output: string | readonly string[],
    options: NodeOptions = {},
  ): string {
    const outputs = typeof output === 'string' ? [output] : [...output]
    const attribute = Object.entries(options.attributes ?? {}).map(([name, value]) => toAttribute(name, value))
    const { domain = '' } = options
    this.#graph.node.push(
      make('Node', { name: outputs[0]!, opType, domain, input: [...inputs], output: outputs, attribute }),
    )
    return outputs[0]!
  }

  /** Says the type of a value between nodes. */
  describe(name: string, dataType: number, axes: Axes): void {
    this.#graph.valueInfo.push(valueInfo(name, dataType, axes))
  }

  /** Names of all values that nodes have written. */
  get written(): readonly string[] {
    return this.#graph.node.flatMap(({ output }) => output)
  }

  /** A node that was written elsewhere. */
  copy(node: OnnxNode): void {
    this.#graph.node.push(node)
  }

  /** What `create` gives for the first call with this key. */
  once(key: string, create: () => string): string {
    const known = this.#known.get(key) ?? create()
    this.#known.set(key, known)
    return known
  }

  /** A tensor inside the graph file. */
  constant(tensor: OnnxTensor): string {
    return this.once(`constant ${tensor.name}`, () => {
      this.#graph.initializer.push(tensor)
      return tensor.name!
    })
  }

  /** int64, a vector. */
  integers(values: readonly number[]): string {
    const name = `int64.${values.join('.')}`
    const { int64: dataType } = dataTypes
    return this.constant(make('Tensor', { name, dataType, dims: [values.length], int64Data: [...values] }))
  }

  /** A weight of the checkpoint; the first of the names. */
  weight(plan: WeightPlan): string {
    const { name } = plan.tensors[0]!
    return this.once(`weight ${name}`, () => {
      this.#plans.push(plan)
      return name
    })
  }

  get plans(): readonly WeightPlan[] {
    return this.#plans
  }

  /** The model without the initializers of the plans. */
  finish(): OnnxModel {
    const opsetImport = [
      { domain: '', version: 21 },
      { domain: 'com.microsoft', version: 1 },
    ].map((operatorSet) => make('OperatorSet', operatorSet))
    return make('Model', { irVersion: 10, producerName: 'kvasir', opsetImport, graph: this.#graph })
  }
}

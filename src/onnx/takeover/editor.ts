/** A graph while it is rewritten: who writes and reads each value, and nodes put in the place of others. */

import { type AttributeValue, toAttribute } from '../builder.ts'
import { make } from '../codec.ts'
import { valuesRead, valuesWritten } from '../graph-walk.ts'
import { dataTypes, type OnnxModel, type OnnxNode, type OnnxTensor } from '../schema.ts'
import type { Fact, Facts } from './facts.ts'
import { numberOf } from './linear.ts'

export interface NewNode {
  readonly domain?: string
  readonly attributes?: Readonly<Record<string, AttributeValue>>
  /** Name of the output, where it must be a given one. */
  readonly output?: string
}

export class GraphEditor {
  readonly model: OnnxModel
  readonly facts: Facts
  readonly #producers = new Map<string, OnnxNode>()
  readonly #consumers = new Map<string, OnnxNode[]>()
  readonly #initializers: Map<string, OnnxTensor>
  readonly #replaced = new Map<OnnxNode, readonly OnnxNode[]>()
  #count = 0

  constructor(model: OnnxModel, facts: Facts) {
    const graph = model.graph!
    this.model = model
    this.facts = facts
    this.#initializers = new Map(graph.initializer.map((tensor) => [tensor.name ?? '', tensor]))
    for (const node of graph.node) {
      for (const name of valuesWritten(node)) this.#producers.set(name, node)
      for (const name of valuesRead(node)) {
        const known = this.#consumers.get(name)
        if (known) known.push(node)
        else this.#consumers.set(name, [node])
      }
    }
  }

  get nodes(): readonly OnnxNode[] {
    return this.model.graph!.node
  }

  fact(name: string): Fact {
    return this.facts.get(name) ?? {}
  }

  producer(name: string): OnnxNode | undefined {
    return this.#producers.get(name)
  }

  consumers(name: string): readonly OnnxNode[] {
    return this.#consumers.get(name) ?? []
  }

  initializer(name: string): OnnxTensor | undefined {
    return this.#initializers.get(name)
  }

  /** The number that an axis has in every step. */
  size(name: string, axis: number): number | undefined {
    return numberOf(this.fact(name).dims?.at(axis))
  }

  isInput(name: string): boolean {
    return !this.#producers.has(name) && this.model.graph!.input.some((input) => input.name === name)
  }

  /** `nodes` come in the place of `anchor`; what it wrote and they don't is gone. */
  replace(anchor: OnnxNode, nodes: readonly OnnxNode[]): void {
    this.#replaced.set(anchor, nodes)
  }

  /** A name that no value has, of this graph or of one that it was made from. */
  fresh(name: string): string {
    let made = ''
    do made = `kvasir.${name}.${this.#count++}`
    while (this.facts.has(made))
    return made
  }

  /** A node with one output; give it to `replace`. */
  node(opType: string, input: readonly string[], { domain = '', attributes = {}, output }: NewNode = {}): OnnxNode {
    const name = output ?? this.fresh(opType)
    const attribute = Object.entries(attributes).map(([key, value]) => toAttribute(key, value))
    return make('Node', { name, opType, domain, input: [...input], output: [name], attribute })
  }

  /** A new int64 constant `[n]`. */
  integers(values: readonly number[]): string {
    const name = this.fresh('integers')
    const tensor = { name, dataType: dataTypes.int64, dims: [values.length], int64Data: [...values] }
    this.#initializers.set(name, make('Tensor', tensor))
    return name
  }

  /** A new f32 constant `[n]`. */
  floats(values: readonly number[]): string {
    const name = this.fresh('floats')
    const tensor = { name, dataType: dataTypes.float, dims: [values.length], floatData: [...values] }
    this.#initializers.set(name, make('Tensor', tensor))
    return name
  }

  /** The graph with everything in place. */
  finish(): OnnxModel {
    const node = this.nodes.flatMap((old) => this.#replaced.get(old) ?? [old])
    return { ...this.model, graph: { ...this.model.graph!, node, initializer: [...this.#initializers.values()] } }
  }
}

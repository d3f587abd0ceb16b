/**
 * Builds one ONNX graph over the tensors of a checkpoint. Values are named and carry their shape, `T` standing for the
 * number of tokens; weights become external initializers (no copy), widened to f32 by a Cast where they are 16 bits.
 */
import { KvasirError } from '../tensor/error.ts'
import { make } from './codec.ts'
import { externalInitializer } from './external.ts'
import type { TensorEntry } from './safetensors.ts'
import {
  attributeTypes,
  dataTypes,
  type OnnxAttribute,
  type OnnxGraph,
  type OnnxModel,
  type OnnxValueInfo,
} from './schema.ts'
import type { Weights } from './weights.ts'

export type Dims = readonly (number | 'T')[]

interface AnyNodeOptions {
  readonly name?: string
  /** Default '': the standard operators. */
  readonly domain?: string
  readonly attributes?: Readonly<Record<string, AttributeValue>>
}

export interface NodeOptions extends AnyNodeOptions {
  /** Shape of the output. */
  readonly shape: Dims
}

export interface MultiNodeOptions extends AnyNodeOptions {
  /** TensorProto.DataType and shape of each. */
  readonly outputs: readonly { readonly dataType: number; readonly shape: Dims }[]
}

export type AttributeValue =
  | { readonly int: number }
  | { readonly float: number }
  | { readonly string: string }
  | { readonly ints: readonly number[] }
  | { readonly graph: OnnxGraph }

/** TensorProto types of the dtypes that can be weights. */
const weightTypes: Readonly<Record<string, number>> = {
  F32: dataTypes.float,
  F16: dataTypes.float16,
  BF16: dataTypes.bfloat16,
}

/** Operator sets of the graphs that are built. SimplifiedLayerNormalization sits in the default domain of ORT. */
const operatorSets = { '': 21, 'com.microsoft': 1, kvasir: 1 }

export class GraphBuilder {
  readonly #weights: Map<string, TensorEntry>
  readonly #graph = make('Graph', { name: 'kvasir' })
  readonly #known = new Map<string, string>()
  #count = 0

  constructor(weights: Weights) {
    this.#weights = new Map(weights)
  }

  /** The tensors of the checkpoint, and the parts that `splitRows` made of some. */
  get weights(): Weights {
    return this.#weights
  }

  input(name: string, dataType: number, dims: Dims): string {
    this.#graph.input.push(valueInfo(name, dataType, dims))
    return name
  }

  /** Adds a node with one f32 output and returns its name; an absent optional input is `undefined`. */
  node(opType: string, inputs: readonly (string | undefined)[], options: NodeOptions): string {
    const { shape, ...rest } = options
    return this.nodeWith(opType, inputs, { ...rest, outputs: [{ dataType: dataTypes.float, shape }] })[0] as string
  }

  /** Adds a node with any outputs and returns their names. */
  nodeWith(opType: string, inputs: readonly (string | undefined)[], options: MultiNodeOptions): string[] {
    const name = `${options.name ?? opType}.${this.#count++}`
    const attribute = Object.entries(options.attributes ?? {}).map(([key, value]) => toAttribute(key, value))
    const output = options.outputs.map((_, i) => (i === 0 ? name : `${name}:${i}`))
    this.#graph.node.push(
      make('Node', {
        name,
        opType,
        domain: options.domain ?? '',
        input: inputs.map((input) => input ?? ''),
        output,
        attribute,
      }),
    )
    for (const [i, { dataType, shape }] of options.outputs.entries()) {
      this.#graph.valueInfo.push(valueInfo(output[i]!, dataType, shape))
    }
    return output
  }

  /**
   * A tensor of the checkpoint as f32.
   * @throws KvasirError `invalid-file` naming the tensor when it is missing or of another shape or dtype
   */
  weight(name: string, shape: readonly number[]): string {
    return this.#once(`${name} as f32`, () => {
      const { raw, dtype } = this.rawWeight(name, shape)
      return dtype === 'F32' ? raw : this.toFloat(raw, shape)
    })
  }

  /** A tensor of the checkpoint as it is stored. */
  rawWeight(name: string, shape: readonly number[]): { raw: string; dtype: string } {
    const { dtype, file, offset, byteLength } = this.#entry(name, shape)
    const dataType = weightTypes[dtype]!
    const raw = this.#once(name, () => {
      this.#graph.initializer.push(externalInitializer({ name, dataType, dims: shape, file, offset, byteLength }))
      return name
    })
    return { raw, dtype }
  }

  /** Names tensors that begin with a key of `prefixes` by its value instead, besides. */
  renameWeights(prefixes: Readonly<Record<string, string>>): void {
    for (const [name, entry] of [...this.#weights]) {
      const prefix = Object.keys(prefixes).find((candidate) => name.startsWith(candidate))
      if (prefix === undefined) continue
      const renamed = prefixes[prefix] + name.slice(prefix.length)
      this.#weights.set(renamed, { ...entry, name: renamed })
    }
  }

  /**
   * Names ranges of a tensor's rows, one after the other, which are then tensors of their own in the same bytes: a
   * fused projection is used as if the checkpoint had its parts.
   * @throws KvasirError `invalid-file` naming the tensor when it is missing or of another shape or dtype
   */
  splitRows(name: string, parts: Readonly<Record<string, number>>, columns: number): void {
    const total = Object.values(parts).reduce((sum, rows) => sum + rows, 0)
    const whole = this.#entry(name, [total, columns])
    let { offset } = whole
    for (const [part, rows] of Object.entries(parts)) {
      const byteLength = (whole.byteLength / total) * rows
      this.#weights.set(part, { ...whole, name: part, shape: [rows, columns], offset, byteLength })
      offset += byteLength
    }
  }

  toFloat(value: string, shape: Dims): string {
    return this.node('Cast', [value], { attributes: { to: { int: dataTypes.float } }, shape })
  }

  /** An int64 vector inside the graph, such as the shape for Reshape. */
  integers(values: readonly number[]): string {
    return this.#once(`int64:${values}`, () => {
      const name = `int64.${this.#count++}`
      this.#graph.initializer.push(
        make('Tensor', { name, dataType: dataTypes.int64, dims: [values.length], int64Data: [...values] }),
      )
      return name
    })
  }

  /** A single f32 inside the graph. */
  number(value: number): string {
    return this.#once(`float:${value}`, () => {
      const name = `float.${this.#count++}`
      this.#graph.initializer.push(make('Tensor', { name, dataType: dataTypes.float, dims: [], floatData: [value] }))
      return name
    })
  }

  has(name: string): boolean {
    return this.#weights.has(name)
  }

  /** The finished model with one output. */
  finish(output: string, shape: Dims): OnnxModel {
    const { node } = this.#graph
    const logits = make('Node', { opType: 'Identity', name: 'logits', input: [output], output: ['logits'] })
    return make('Model', {
      irVersion: 10,
      producerName: 'kvasir',
      opsetImport: Object.entries(operatorSets).map(([domain, version]) => make('OperatorSet', { domain, version })),
      graph: { ...this.#graph, node: [...node, logits], output: [valueInfo('logits', dataTypes.float, shape)] },
    })
  }

  #entry(name: string, shape: readonly number[]): TensorEntry {
    const entry = this.#weights.get(name)
    const expected = `expected tensor "${name}" of shape [${shape.join(', ')}] in F32, F16 or BF16`
    if (!entry) throw new KvasirError('invalid-file', 'onnx', `${expected}, found no such tensor`)
    if (String(entry.shape) === String(shape) && entry.dtype in weightTypes) return entry
    const found = `found shape [${entry.shape.join(', ')}] in ${entry.dtype}`
    throw new KvasirError('invalid-file', 'onnx', `${expected}, ${found} in ${entry.file}`)
  }

  #once(key: string, create: () => string): string {
    const known = this.#known.get(key)
    if (known !== undefined) return known
    const name = create()
    this.#known.set(key, name)
    return name
  }
}

/** The declaration of a tensor value. */
export function valueInfo(name: string, dataType: number, dims: readonly (number | string)[]): OnnxValueInfo {
  const dim = dims.map((d) => make('Dimension', typeof d === 'number' ? { dimValue: d } : { dimParam: d }))
  const tensorType = make('TensorType', { elemType: dataType, shape: make('Shape', { dim }) })
  return make('ValueInfo', { name, type: make('Type', { tensorType }) })
}

export function toAttribute(name: string, value: AttributeValue): OnnxAttribute {
  if ('int' in value) return make('Attribute', { name, type: attributeTypes.int, i: value.int })
  if ('float' in value) return make('Attribute', { name, type: attributeTypes.float, f: value.float })
  if ('string' in value) {
    return make('Attribute', { name, type: attributeTypes.string, s: new TextEncoder().encode(value.string) })
  }
  if ('graph' in value) return make('Attribute', { name, type: attributeTypes.graph, g: value.graph })
  return make('Attribute', { name, type: attributeTypes.ints, ints: [...value.ints] })
}

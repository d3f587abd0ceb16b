/**
 * Builds one ONNX graph over the tensors of a checkpoint. Values are named and carry their shape, `T` standing for the
 * number of tokens; weights become external initializers (no copy), widened to f32 by a Cast where they are 16 bits.
 */
import { KvasirError } from '../tensor/error.ts'
import { make } from './codec.ts'
import { externalInitializer } from './external.ts'
import type { TensorEntry } from './safetensors.ts'
import { attributeTypes, dataTypes, type OnnxAttribute, type OnnxModel, type OnnxValueInfo } from './schema.ts'
import type { Weights } from './weights.ts'

export type Dims = readonly (number | 'T')[]

export interface NodeOptions {
  readonly name?: string
  /** Default '': the standard operators. */
  readonly domain?: string
  readonly attributes?: Readonly<Record<string, AttributeValue>>
  /** Shape of the output. */
  readonly shape: Dims
}

export type AttributeValue =
  | { readonly int: number }
  | { readonly float: number }
  | { readonly string: string }
  | { readonly ints: readonly number[] }

/** TensorProto types of the dtypes that can be weights. */
const weightTypes: Readonly<Record<string, number>> = {
  F32: dataTypes.float,
  F16: dataTypes.float16,
  BF16: dataTypes.bfloat16,
}

/** Operator sets of the graphs that are built. SimplifiedLayerNormalization sits in the default domain of ORT. */
const operatorSets = { '': 21, 'com.microsoft': 1, kvasir: 1 }

export class GraphBuilder {
  readonly weights: Weights
  readonly #graph = make('Graph', { name: 'kvasir' })
  readonly #known = new Map<string, string>()
  #count = 0

  constructor(weights: Weights) {
    this.weights = weights
  }

  input(name: string, dataType: number, dims: Dims): string {
    this.#graph.input.push(valueInfo(name, dataType, dims))
    return name
  }

  /** Adds a node with one output and returns its name; an absent optional input is `undefined`. */
  node(opType: string, inputs: readonly (string | undefined)[], options: NodeOptions): string {
    const output = `${options.name ?? opType}.${this.#count++}`
    const attribute = Object.entries(options.attributes ?? {}).map(([name, value]) => toAttribute(name, value))
    this.#graph.node.push(
      make('Node', {
        name: output,
        opType,
        domain: options.domain ?? '',
        input: inputs.map((input) => input ?? ''),
        output: [output],
        attribute,
      }),
    )
    this.#graph.valueInfo.push(valueInfo(output, dataTypes.float, options.shape))
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

  has(name: string): boolean {
    return this.weights.has(name)
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
    const entry = this.weights.get(name)
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
export function valueInfo(name: string, dataType: number, dims: Dims): OnnxValueInfo {
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
  return make('Attribute', { name, type: attributeTypes.ints, ints: [...value.ints] })
}

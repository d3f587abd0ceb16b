/**
 * The graph that Kvasir built for its own use, as one that ONNX Runtime runs by itself: `[T, features]` becomes
 * `[batch_size, sequence_length, features]`, and attention with its cache becomes part of the graph.
 *
 * Only products, attention, reshapes and look-ups change with that; everything else works on any number of axes.
 * Residuals and norms are f32 in all exports: in f16 the streams of some models (Gemma) overflow.
 */
import type { RotaryEncoding } from '../../positions/index.ts'
import { KvasirError } from '../../tensor/error.ts'
import { isAttention, parseAttention } from '../attention-node.ts'
import type { Checkpoint } from '../checkpoint.ts'
import { producersOf } from '../graph-walk.ts'
import { isWorthQuantizing, matMulSettings, type QuantizedBits, quantizedNames } from '../quantize.ts'
import type { TensorEntry } from '../safetensors.ts'
import { dataTypes, type OnnxModel, type OnnxNode, type OnnxTensor } from '../schema.ts'
import { AttentionWriter } from './attention.ts'
import { GraphWriter } from './graph-writer.ts'
import { type FloatType, planFloats, planQuantized, type WeightPlan } from './weight-plan.ts'

export interface UncutOptions {
  /** Of matrices that are not quantized, of attention, and of past and present. */
  readonly type: FloatType
  readonly bits?: QuantizedBits
  readonly maxPositions: number
  readonly rotary: readonly (RotaryEncoding | undefined)[]
}

export interface UncutModel {
  /** Without the initializers of the plans. */
  readonly model: OnnxModel
  readonly plans: readonly WeightPlan[]
}

/** @throws KvasirError `unsupported` for graphs that GroupQueryAttention can't express */
export function uncutModel(checkpoint: Checkpoint, options: UncutOptions): UncutModel {
  return new Uncutter(checkpoint, options).run()
}

/** A weight, and what is added to it. */
interface Stored {
  readonly entry: TensorEntry
  readonly offset: number
}

class Uncutter {
  readonly #checkpoint: Checkpoint
  readonly #options: UncutOptions
  readonly #graph = new GraphWriter()
  readonly #producers: ReadonlyMap<string, OnnxNode>
  readonly #initializers: ReadonlyMap<string, OnnxTensor>
  /** Values of the old graph that have another name in the new one. */
  readonly #renamed = new Map<string, string>()
  /** f16 values that are known under the name of their f32 version. */
  readonly #halves = new Map<string, string>()
  readonly #attention: AttentionWriter

  constructor(checkpoint: Checkpoint, options: UncutOptions) {
    const { graph } = checkpoint.model
    this.#checkpoint = checkpoint
    this.#options = options
    this.#producers = producersOf(graph!)
    this.#initializers = new Map(graph!.initializer.map((tensor) => [tensor.name!, tensor]))
    const tokens = this.#graph.input('input_ids', dataTypes.int64, ['batch_size', 'sequence_length'])
    this.#renamed.set(checkpoint.ends.tokens, tokens)
    this.#graph.input('attention_mask', dataTypes.int64, ['batch_size', 'total_sequence_length'])
    const axes = ['batch_size', 'sequence_length', checkpoint.spec.vocabSize]
    this.#graph.output('logits', dataTypes.float, axes)
    this.#attention = new AttentionWriter(this.#graph, options)
  }

  run(): UncutModel {
    for (const node of this.#checkpoint.model.graph!.node) if (!this.#isStored(node.output[0]!)) this.#translate(node)
    this.#describeValues()
    return { model: this.#graph.finish(), plans: this.#graph.plans }
  }

  /** Shapes of values that have those of the old graph, but for the first axis; tools read them. */
  #describeValues(): void {
    const infos = new Map(this.#checkpoint.model.graph!.valueInfo.map((info) => [info.name!, info]))
    for (const node of this.#checkpoint.model.graph!.node.filter(isAttention)) {
      const output = this.#renamed.get(node.output[0]!) ?? this.#halves.get(node.output[0]!)
      infos.set(output!, infos.get(node.output[0]!)!)
    }
    for (const name of this.#graph.written) {
      const [, base, part] = /^(.*?)(\/f16|\/MatMul|\/f16\/MatMul)?$/.exec(name)!
      const [, ...dims] = infos.get(base!)?.type?.tensorType?.shape?.dim ?? []
      if (dims.length === 0) continue
      const isHalf = part?.startsWith('/f16') || (isAttentionOutput(name) && this.#options.type === 'f16')
      const axes = ['batch_size', 'sequence_length', ...dims.map(({ dimValue }) => Number(dimValue))]
      this.#graph.describe(name, isHalf ? dataTypes.float16 : dataTypes.float, axes)
    }
  }

  #translate(node: OnnxNode): void {
    if (isAttention(node)) this.#addAttention(node)
    else if (node.opType === 'Gemm') this.#addProduct(node)
    else if (node.opType === 'Gather') this.#addLookUp(node)
    else if (node.opType === 'Reshape') this.#addReshape(node)
    else if (node.opType === 'SimplifiedLayerNormalization') this.#addNorm(node)
    else if (node.opType === 'Cast')
      this.#renamed.set(node.output[0]!, this.#value(node.input[0]!)) // of a look-up
    else this.#graph.copy({ ...node, input: node.input.map((name) => this.#value(name)) })
  }

  #addAttention(old: OnnxNode): void {
    const node = parseAttention(old)
    if (node.importance) throw new KvasirError('unsupported', 'onnx', 'no ONNX operator attends by importance')
    const { query, key, value, numHeads, numKvHeads, headDim } = node
    const inputs = [
      this.#flatHeads(query, numHeads * headDim),
      this.#flatHeads(key!, numKvHeads * headDim),
      this.#flatHeads(value!, numKvHeads * headDim),
    ] as const
    const attended = this.#attention.add(node, inputs)
    const values = this.#options.type === 'f16' ? this.#halves : this.#renamed
    values.set(node.output, attended)
  }

  /** `[B, S, heads, headDim]` as `[B, S, heads * headDim]`; a value that was only split is taken from before that. */
  #flatHeads(name: string, size: number): string {
    const producer = this.#producers.get(name)
    if (producer?.opType === 'Gemm') return this.#half(name)
    if (producer?.opType === 'Reshape') return this.#half(producer.input[0]!)
    const flat = `${name}/flat`
    this.#graph.node('Reshape', [this.#value(name), this.#graph.integers([0, 0, size])], flat)
    return this.#half(flat)
  }

  #addReshape(node: OnnxNode): void {
    const [input, shape] = node.input as [string, string]
    const readers = this.#checkpoint.model.graph!.node.filter((reader) => reader.input.includes(node.output[0]!))
    if (readers.every(isAttention)) return // see #flatHeads
    const [, ...rest] = this.#initializers.get(shape)!.int64Data.map(Number)
    this.#graph.node('Reshape', [this.#value(input), this.#graph.integers([0, 0, ...rest])], node.output)
  }

  #addLookUp(node: OnnxNode): void {
    const [table, indices] = node.input as [string, string]
    const { entry } = this.#stored(table)!
    const type = this.#tableType(entry)
    const weight = this.#graph.weight(planFloats(nameOf(entry, type), entry, { type }))
    const output = node.output[0]!
    const rows = this.#graph.node('Gather', [weight, this.#value(indices)], type === 'f32' ? output : `${output}/f16`)
    if (type === 'f16') this.#halves.set(output, rows)
  }

  /** Tables stay 16 bits wide where the checkpoint's are and something smaller than f32 was asked for. */
  #tableType({ dtype }: TensorEntry): FloatType {
    const { type, bits } = this.#options
    return type === 'f16' || (bits !== undefined && dtype !== 'F32') ? 'f16' : 'f32'
  }

  #addNorm(node: OnnxNode): void {
    const [x, scale] = node.input as [string, string]
    const { entry, offset } = this.#stored(scale)!
    const weight = this.#graph.weight(planFloats(nameOf(entry, 'f32'), entry, { type: 'f32', offset }))
    this.#graph.copy({ ...node, input: [this.#value(x), weight] })
  }

  #addProduct(node: OnnxNode): void {
    const [x, matrix, bias] = node.input as [string, string, string | undefined]
    const { entry } = this.#stored(matrix)!
    const output = node.output[0]!
    const { bits } = this.#options
    if (bits !== undefined && isWorthQuantizing(entry))
      this.#addQuantizedProduct(this.#value(x), entry, output, bias, bits)
    else if (this.#options.type === 'f32') this.#addMatMul(this.#value(x), entry, output, bias)
    else this.#halves.set(output, this.#addMatMul(this.#half(x), entry, `${output}/f16`, bias))
  }

  #addMatMul(x: string, entry: TensorEntry, output: string, bias: string | undefined): string {
    const { type } = this.#options
    const product = bias ? `${output}/MatMul` : output
    this.#graph.node('MatMul', [x, this.#transposed(entry)], product)
    if (!bias) return output
    return this.#graph.node('Add', [product, this.#vector(bias, type)], output)
  }

  /** A tied embedding is transposed by a node, so that the file holds it once. */
  #transposed(entry: TensorEntry): string {
    const { type } = this.#options
    const isTable = this.#checkpoint.model.graph!.node.some(
      ({ opType, input }) => opType === 'Gather' && this.#stored(input[0]!)?.entry === entry,
    )
    if (!isTable) {
      return this.#graph.weight(planFloats(`${nameOf(entry, type)}.transposed`, entry, { type, isTransposed: true }))
    }
    const table = this.#graph.weight(planFloats(nameOf(entry, type), entry, { type }))
    return this.#graph.once(`transpose ${table}`, () => this.#graph.node('Transpose', [table], `${table}/Transpose`))
  }

  #addQuantizedProduct(
    x: string,
    entry: TensorEntry,
    output: string,
    bias: string | undefined,
    bits: QuantizedBits,
  ): void {
    const names = quantizedNames(entry.name)
    this.#graph.weight(planQuantized(entry, names, bits))
    const [outFeatures, inFeatures] = entry.shape as [number, number]
    const inputs = [x, names.codes, names.scales, ...(bias ? ['', '', this.#vector(bias, 'f32')] : [])]
    const settings = Object.entries(matMulSettings({ bits, inFeatures, outFeatures }))
    const attributes = Object.fromEntries(settings.map(([name, int]) => [name, { int }]))
    this.#graph.node('MatMulNBits', inputs, output, { domain: 'com.microsoft', attributes })
  }

  #vector(name: string, type: FloatType): string {
    const { entry } = this.#stored(name)!
    return this.#graph.weight(planFloats(nameOf(entry, type), entry, { type }))
  }

  /** The f32 value of the new graph. */
  #value(name: string): string {
    const constant = this.#initializers.get(name)
    if (constant && constant.externalData.length === 0) return this.#graph.constant(constant)
    const half = this.#halves.get(name)
    const known = this.#renamed.get(name)
    if (known !== undefined) return known === name ? name : this.#value(known)
    if (half === undefined) return name
    return this.#graph.once(`widen ${name}`, () => this.#cast(half, name, dataTypes.float))
  }

  /** The value as attention and products take it: f16 where they are f16. */
  #half(name: string): string {
    if (this.#options.type === 'f32') return this.#value(name)
    const known = this.#halves.get(name)
    if (known !== undefined) return known
    const value = this.#value(name)
    return this.#graph.once(`narrow ${value}`, () => this.#cast(value, `${value}/f16`, dataTypes.float16))
  }

  #cast(value: string, output: string, to: number): string {
    return this.#graph.node('Cast', [value], output, { attributes: { to: { int: to } } })
  }

  #isStored(value: string): boolean {
    return this.#stored(value) !== undefined
  }

  /** A weight behind a value: directly, widened, or with a number added. */
  #stored(value: string): Stored | undefined {
    const entry = this.#initializers.get(value)?.externalData.length ? this.#checkpoint.weights.get(value) : undefined
    if (entry) return { entry, offset: 0 }
    const node = this.#producers.get(value)
    if (node?.opType !== 'Cast' && node?.opType !== 'Add') return undefined
    const stored = this.#stored(node.input[0]!)
    if (!stored || node.opType === 'Cast') return stored
    const [added] = this.#initializers.get(node.input[1]!)?.floatData ?? []
    return added === undefined ? undefined : { ...stored, offset: stored.offset + added }
  }
}

function isAttentionOutput(name: string): boolean {
  return name.endsWith('/GroupQueryAttention')
}

function nameOf({ name }: TensorEntry, type: FloatType): string {
  return type === 'f16' ? `${name}.f16` : name
}

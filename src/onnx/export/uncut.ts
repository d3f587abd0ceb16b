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
import type { TensorEntry } from '../safetensors.ts'
import { dataTypes, type OnnxModel, type OnnxNode } from '../schema.ts'
import { AttentionWriter } from './attention.ts'
import { GraphWriter } from './graph-writer.ts'
import { type ProductOptions, ProductWriter } from './products.ts'
import { Values } from './values.ts'
import type { FloatType, WeightPlan } from './weight-plan.ts'

/** `type`: of matrices that are not quantized, of attention, and of past and present. */
export interface UncutOptions extends ProductOptions {
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

class Uncutter {
  readonly #checkpoint: Checkpoint
  readonly #options: UncutOptions
  readonly #graph = new GraphWriter()
  readonly #values: Values
  readonly #products: ProductWriter
  readonly #attention: AttentionWriter
  /** Outputs of attention by their names in the old graph. */
  readonly #attended = new Map<string, string>()

  constructor(checkpoint: Checkpoint, options: UncutOptions) {
    this.#checkpoint = checkpoint
    this.#options = options
    const graph = this.#graph
    this.#values = new Values(checkpoint, graph, options.type)
    this.#products = new ProductWriter(checkpoint, graph, this.#values, options)
    const tokens = graph.input('input_ids', dataTypes.int64, ['batch_size', 'sequence_length'])
    this.#values.rename(checkpoint.ends.tokens, tokens)
    graph.input('attention_mask', dataTypes.int64, ['batch_size', 'total_sequence_length'])
    graph.output('logits', dataTypes.float, ['batch_size', 'sequence_length', checkpoint.spec.vocabSize])
    this.#attention = new AttentionWriter(graph, options)
  }

  run(): UncutModel {
    for (const node of this.#checkpoint.model.graph!.node) {
      if (!this.#values.stored(node.output[0]!)) this.#translate(node)
    }
    this.#describeValues()
    return { model: this.#graph.finish(), plans: this.#graph.plans }
  }

  #translate(node: OnnxNode): void {
    if (isAttention(node)) this.#addAttention(node)
    else if (node.opType === 'Gemm') this.#products.add(node)
    else if (node.opType === 'Gather') this.#addLookUp(node)
    else if (node.opType === 'Reshape') this.#addReshape(node)
    else if (node.opType === 'SimplifiedLayerNormalization') this.#addNorm(node)
    else if (node.opType === 'Cast') this.#values.rename(node.output[0]!, node.input[0]!)
    else this.#graph.copy({ ...node, input: node.input.map((name) => this.#values.get(name)) })
  }

  #addAttention(old: OnnxNode): void {
    const node = parseAttention(old)
    if (node.importance) throw new KvasirError('unsupported', 'onnx', 'no ONNX operator attends by importance')
    const { query, key, value, numHeads, numKvHeads, headDim } = node
    const attended = this.#attention.add(node, [
      this.#flatHeads(query, numHeads * headDim),
      this.#flatHeads(key!, numKvHeads * headDim),
      this.#flatHeads(value!, numKvHeads * headDim),
    ])
    this.#attended.set(attended, node.output)
    if (this.#options.type === 'f16') this.#values.setHalf(node.output, attended)
    else this.#values.rename(node.output, attended)
  }

  /** `[B, S, heads, headDim]` as `[B, S, heads * headDim]`; a value that was only split is taken from before that. */
  #flatHeads(name: string, size: number): string {
    const producer = this.#values.producer(name)
    if (producer?.opType === 'Gemm') return this.#values.getOperand(name)
    if (producer?.opType === 'Reshape') return this.#values.getOperand(producer.input[0]!)
    const flat = `${name}/flat`
    this.#graph.node('Reshape', [this.#values.get(name), this.#graph.integers([0, 0, size])], flat)
    return this.#values.getOperand(flat)
  }

  #addReshape(node: OnnxNode): void {
    const [input, shape] = node.input as [string, string]
    const readers = this.#checkpoint.model.graph!.node.filter((reader) => reader.input.includes(node.output[0]!))
    if (readers.every(isAttention)) return // see #flatHeads
    const [, ...rest] = this.#values.integers(shape)
    this.#graph.node('Reshape', [this.#values.get(input), this.#graph.integers([0, 0, ...rest])], node.output)
  }

  #addLookUp(node: OnnxNode): void {
    const [table, indices] = node.input as [string, string]
    const type = this.#tableType(this.#values.stored(table)!.entry)
    const inputs = [this.#values.weight(table, type), this.#values.get(indices)]
    const output = node.output[0]!
    const rows = this.#graph.node('Gather', inputs, type === 'f32' ? output : `${output}/f16`)
    if (type === 'f16') this.#values.setHalf(output, rows)
  }

  /** Tables stay 16 bits wide where the checkpoint's are and something smaller than f32 was asked for. */
  #tableType({ dtype }: TensorEntry): FloatType {
    const { type, bits } = this.#options
    return type === 'f16' || (bits !== undefined && dtype !== 'F32') ? 'f16' : 'f32'
  }

  #addNorm(node: OnnxNode): void {
    const [x, scale] = node.input as [string, string]
    this.#graph.copy({ ...node, input: [this.#values.get(x), this.#values.weight(scale, 'f32')] })
  }

  /** Shapes of values that have those of the old graph, but for the first axis; tools read them. */
  #describeValues(): void {
    const infos = new Map(this.#checkpoint.model.graph!.valueInfo.map((info) => [info.name!, info]))
    for (const name of this.#graph.written) {
      const attended = this.#attended.get(name)
      const [, base, part = ''] = /^(.*?)((?:\/f16)?(?:\/MatMul)?)$/.exec(name)!
      const [, ...dims] = infos.get(attended ?? base!)?.type?.tensorType?.shape?.dim ?? []
      if (dims.length === 0) continue
      const isHalf = attended === undefined ? part.startsWith('/f16') : this.#options.type === 'f16'
      const axes = ['batch_size', 'sequence_length', ...dims.map(({ dimValue }) => Number(dimValue))]
      this.#graph.describe(name, isHalf ? dataTypes.float16 : dataTypes.float, axes)
    }
  }
}

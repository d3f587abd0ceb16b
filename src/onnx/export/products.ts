/** Matrix products of an exported graph: MatMul over transposed weights, MatMulNBits over quantized ones. */
import type { Checkpoint } from '../checkpoint.ts'
import { isWorthQuantizing, matMulSettings, type QuantizedBits, quantizedNames } from '../quantize.ts'
import type { TensorEntry } from '../safetensors.ts'
import type { OnnxNode } from '../schema.ts'
import type { GraphWriter } from './graph-writer.ts'
import { type Values, weightName } from './values.ts'
import { type FloatType, planFloats, planQuantized } from './weight-plan.ts'

export interface ProductOptions {
  readonly type: FloatType
  readonly bits?: QuantizedBits
}

export class ProductWriter {
  readonly #graph: GraphWriter
  readonly #values: Values
  readonly #options: ProductOptions
  /** Weights that tokens are looked up in. */
  readonly #tables: ReadonlySet<TensorEntry | undefined>

  constructor({ model }: Checkpoint, graph: GraphWriter, values: Values, options: ProductOptions) {
    this.#graph = graph
    this.#values = values
    this.#options = options
    const lookUps = model.graph!.node.filter(({ opType }) => opType === 'Gather')
    this.#tables = new Set(lookUps.map(({ input }) => values.stored(input[0]!)?.entry))
  }

  /** @param node Gemm with transB */
  add(node: OnnxNode): void {
    const [x, matrix, bias] = node.input as [string, string, string | undefined]
    const { entry } = this.#values.stored(matrix)!
    const output = node.output[0]!
    const { type, bits } = this.#options
    if (bits !== undefined && isWorthQuantizing(entry)) this.#addQuantized(x, entry, output, bias, bits)
    else if (type === 'f32') this.#addMatMul(x, matrix, output, bias)
    else this.#values.setHalf(output, this.#addMatMul(x, matrix, `${output}/f16`, bias))
  }

  #addMatMul(x: string, matrix: string, output: string, bias: string | undefined): string {
    const product = bias ? `${output}/MatMul` : output
    this.#graph.node('MatMul', [this.#values.getOperand(x), this.#transposed(matrix)], product)
    if (!bias) return output
    return this.#graph.node('Add', [product, this.#values.weight(bias, this.#options.type)], output)
  }

  /** A tied embedding is transposed by a node, so that the file holds it once. */
  #transposed(matrix: string): string {
    const { type } = this.#options
    const { entry } = this.#values.stored(matrix)!
    if (this.#tables.has(entry)) {
      const table = this.#values.weight(matrix, type)
      return this.#graph.once(`transpose ${table}`, () => this.#graph.node('Transpose', [table], `${table}/Transpose`))
    }
    return this.#graph.weight(planFloats(`${weightName(entry, type)}.transposed`, entry, { type, isTransposed: true }))
  }

  #addQuantized(x: string, entry: TensorEntry, output: string, bias: string | undefined, bits: QuantizedBits): void {
    const names = quantizedNames(entry.name)
    this.#graph.weight(planQuantized(entry, names, bits))
    const [outFeatures, inFeatures] = entry.shape as [number, number]
    const added = bias ? ['', '', this.#values.weight(bias, 'f32')] : []
    const settings = Object.entries(matMulSettings({ bits, inFeatures, outFeatures }))
    this.#graph.node('MatMulNBits', [this.#values.get(x), names.codes, names.scales, ...added], output, {
      domain: 'com.microsoft',
      attributes: Object.fromEntries(settings.map(([name, int]) => [name, { int }])),
    })
  }
}

/** Writes graphs as exporters do, with random weights, for tests: node by node, under the names that they give. */

import { f32ToF16 } from '../../../tensor/float16.ts'
import { type AttributeValue, toAttribute, valueInfo } from '../../builder.ts'
import { make } from '../../codec.ts'
import { quantizeMatrix } from '../../quantize.ts'
import { dataTypes, type OnnxNode, type OnnxTensor, type OnnxValueInfo } from '../../schema.ts'
import { quantizeCoarsely, quantizeNormally } from './weight-codes.ts'

/** How weights are stored, as in the variants of transformers.js. */
export type WeightKind =
  | 'fp32'
  | 'fp16'
  | 'q8'
  | 'int8'
  | 'uint8'
  | 'q4'
  | 'q4f16'
  | 'q2'
  | 'q2f16'
  | 'q1'
  | 'q1f16'
  | 'bnb4'

/** Sizes and everything else that tests vary. */
export interface DecoderSettings {
  readonly layers: number
  readonly numHeads: number
  readonly numKvHeads: number
  readonly headDim: number
  readonly hiddenSize: number
  readonly intermediateSize: number
  readonly vocabSize: number
  readonly maxPositions: number
  readonly theta: number
  readonly weights: WeightKind
  readonly seed: number
}

export const smallDecoder: DecoderSettings = {
  ...{ layers: 2, numHeads: 4, numKvHeads: 2, headDim: 16, hiddenSize: 64, intermediateSize: 96, vocabSize: 260 },
  ...{ maxPositions: 256, theta: 10000, weights: 'fp32', seed: 1 },
}

export interface NodeSettings {
  readonly domain?: string
  readonly attributes?: Readonly<Record<string, AttributeValue>>
}

type Axis = number | string

export class PublishedWriter {
  readonly settings: DecoderSettings
  readonly nodes: OnnxNode[] = []
  readonly tensors: OnnxTensor[] = []
  readonly inputs: OnnxValueInfo[] = []
  readonly outputs: OnnxValueInfo[] = []
  readonly #known = new Set<string>()
  readonly #random: () => number
  #count = 0

  constructor(settings: DecoderSettings) {
    this.settings = settings
    this.#random = randomNumbers(settings.seed)
  }

  /** The type of activations. */
  get float(): number {
    return this.settings.weights.endsWith('f16') || this.settings.weights === 'fp16'
      ? dataTypes.float16
      : dataTypes.float
  }

  input(name: string, type: number, axes: readonly Axis[]): string {
    this.inputs.push(declare(name, type, axes))
    return name
  }

  output(name: string, type: number, axes: readonly Axis[]): void {
    this.outputs.push(declare(name, type, axes))
  }

  node(
    opType: string,
    inputs: readonly string[],
    name?: string | readonly string[],
    { domain = '', attributes = {} }: NodeSettings = {},
  ): string {
    const output = typeof name === 'string' ? [name] : [...(name ?? [`/${opType}_${this.#count++}_output_0`])]
    const attribute = Object.entries(attributes).map(([key, value]) => toAttribute(key, value))
    this.nodes.push(make('Node', { name: `${output[0]}/node`, opType, domain, input: [...inputs], output, attribute }))
    return output[0]!
  }

  integers(values: readonly number[], dims: readonly number[] = [values.length]): string {
    return this.#once(`int64 ${dims} ${values}`, dataTypes.int64, dims, int64Bytes(values))
  }

  scalar(value: number): string {
    return this.integers([value], [])
  }

  /** Numbers in the type of activations (or f32). */
  floats(values: readonly number[], dims: readonly number[] = [], type = this.float): string {
    return this.tensor(`float ${type} ${dims} ${values}`, values, dims, type)
  }

  tensor(name: string, values: ArrayLike<number>, dims: readonly number[], type = this.float): string {
    return this.#once(name, type, dims, floatBytes(values, type))
  }

  bools(name: string, values: readonly boolean[], dims: readonly number[]): string {
    return this.#once(name, dataTypes.bool, dims, Uint8Array.from(values, Number))
  }

  /** A random vector or table in the type of activations. */
  random(name: string, dims: readonly number[], mean: number, spread: number): string {
    return this.tensor(name, this.#draw(dims, mean, spread), dims)
  }

  /** x W (+ b), `[..., inFeatures]` to `[..., outFeatures]`, in the form of the weight kind. */
  linear(x: string, name: string, inFeatures: number, outFeatures: number, bias = false): string {
    const weights = this.#draw([inFeatures, outFeatures], 0, 1 / Math.sqrt(inFeatures))
    const product = this.#product(x, name, weights, inFeatures, outFeatures)
    return bias ? this.node('Add', [this.random(`${name}.bias`, [outFeatures], 0, 0.2), product]) : product
  }

  #product(x: string, name: string, weights: Float32Array, inFeatures: number, outFeatures: number): string {
    const { weights: kind } = this.settings
    if (kind === 'fp32' || kind === 'fp16') {
      const weight = this.tensor(`onnx::MatMul_${name}`, weights, [inFeatures, outFeatures])
      return this.node('MatMul', [x, weight], `/${name}/MatMul_output_0`)
    }
    if (kind === 'q8' || kind === 'int8' || kind === 'uint8')
      return this.#dynamic(x, name, weights, inFeatures, outFeatures, kind)
    const transposed = transpose(weights, inFeatures, outFeatures)
    if (kind === 'bnb4') return this.#normalFloat(x, name, transposed, inFeatures, outFeatures)
    const bits = Number(kind[1]) as 1 | 2 | 4
    const { codes, scales } =
      bits === 4 ? quantizeMatrix(transposed, outFeatures, bits) : quantizeCoarsely(transposed, bits)
    const blocks = Math.ceil(inFeatures / 32)
    const bytes = this.#once(`${name}_Q${bits}`, dataTypes.uint8, [outFeatures, blocks, 4 * bits], codes)
    const scale = this.tensor(`${name}_scales`, scales, [outFeatures * blocks])
    const sizes = { K: { int: inFeatures }, N: { int: outFeatures }, bits: { int: bits }, block_size: { int: 32 } }
    return this.node('MatMulNBits', [x, bytes, scale], `/${name}/MatMul_Q${bits}_output_0`, {
      domain: 'com.microsoft',
      attributes: sizes,
    })
  }

  /** Dynamic quantization: activations per tensor; weights per tensor, or per column (`int8`). */
  #dynamic(
    x: string,
    name: string,
    weights: Float32Array,
    rows: number,
    columns: number,
    kind: 'q8' | 'int8' | 'uint8',
  ): string {
    const groups = kind === 'int8' ? columns : 1
    const scales = new Float32Array(groups)
    for (const [i, value] of weights.entries())
      scales[i % groups] = Math.max(scales[i % groups]!, Math.abs(value) / 127)
    const zero = kind === 'uint8' ? 128 : 0
    const codes = Uint8Array.from(weights, (value, i) => (Math.round(value / scales[i % groups]!) + zero) & 0xff)
    const type = kind === 'uint8' ? dataTypes.uint8 : dataTypes.int8
    const dims = kind === 'int8' ? [columns] : []
    const weight = this.#once(`${name}_quantized`, type, [rows, columns], codes)
    const zeroPoint = this.#once(`${name}_zero_point`, type, dims, new Uint8Array(groups).fill(zero))
    const weightScale = this.tensor(`${name}_scale`, scales, dims, dataTypes.float)
    const quantized = [`${name}_q`, `${name}_q_scale`, `${name}_q_zero`]
    this.node('DynamicQuantizeLinear', [x], quantized)
    const product = this.node('MatMulInteger', [quantized[0]!, weight, quantized[2]!, zeroPoint])
    const cast = this.node('Cast', [product], undefined, { attributes: { to: { int: dataTypes.float } } })
    return this.node('Mul', [cast, this.node('Mul', [quantized[1]!, weightScale])])
  }

  /** A table in blocks of 32 codes of 4 bits `[rows, blocks, 16]`, and its scales `[rows, blocks]`. */
  packedTable(name: string, rows: number, columns: number): readonly [codes: string, scales: string] {
    const blocks = columns / 32
    const { codes, scales } = quantizeMatrix(this.#draw([rows, columns], 0, 1), rows, 4)
    return [
      this.#once(`${name}_Q4`, dataTypes.uint8, [rows, blocks, 16], codes),
      this.tensor(`${name}_scales`, scales, [rows, blocks]),
    ]
  }

  /** NF4 in blocks of 64 along the flattened `[N, K]`. */
  #normalFloat(x: string, name: string, weights: Float32Array, inFeatures: number, outFeatures: number): string {
    const { codes, most } = quantizeNormally(weights)
    const bytes = this.#once(`${name}_Bnb4`, dataTypes.uint8, [codes.length], codes)
    const absmax = this.tensor(`${name}_absmax`, most, [most.length])
    const attributes = {
      ...{ K: { int: inFeatures }, N: { int: outFeatures } },
      ...{ block_size: { int: 64 }, quant_type: { int: 1 } },
    }
    return this.node('MatMulBnb4', [x, bytes, absmax], undefined, { domain: 'com.microsoft', attributes })
  }

  #draw(dims: readonly number[], mean: number, spread: number): Float32Array {
    const size = dims.reduce((product, dim) => product * dim, 1)
    return Float32Array.from({ length: size }, () => mean + spread * this.#random())
  }

  #once(name: string, dataType: number, dims: readonly number[], rawData: Uint8Array): string {
    if (this.#known.has(name)) return name
    this.#known.add(name)
    this.tensors.push(make('Tensor', { name, dataType, dims: [...dims], rawData }))
    return name
  }
}

function transpose(matrix: Float32Array, rows: number, columns: number): Float32Array {
  return Float32Array.from(matrix, (_, i) => matrix[(i % rows) * columns + Math.floor(i / rows)]!)
}

function int64Bytes(values: readonly number[]): Uint8Array {
  return new Uint8Array(BigInt64Array.from(values, BigInt).buffer)
}

function floatBytes(values: ArrayLike<number>, type: number): Uint8Array {
  if (type === dataTypes.float16)
    return new Uint8Array(Uint16Array.from(Array.from(values), (v) => f32ToF16(Math.fround(v))).buffer)
  return new Uint8Array(Float32Array.from(Array.from(values)).buffer)
}

function declare(name: string, type: number, axes: readonly Axis[]): OnnxValueInfo {
  return valueInfo(name, type, axes as readonly (number | 'T')[])
}

/** About normal, spread 1. */
function randomNumbers(seed: number): () => number {
  let state = seed >>> 0 || 1
  const uniform = (): number => {
    state ^= state << 13
    state ^= state >>> 17
    state ^= state << 5
    return (state >>> 0) / 2 ** 32
  }
  return () => (uniform() + uniform() + uniform() + uniform() - 2) * Math.sqrt(3)
}

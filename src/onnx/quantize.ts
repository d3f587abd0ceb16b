/**
 * Weights of 4 or 8 bits for com.microsoft MatMulNBits: blocks of 32 along the input features, one f32 scale each.
 *
 * As ONNX Runtime's own round-to-nearest quantizer: the element m of largest magnitude maps to the lowest code, scale =
 * m / -2^(bits-1) (so scales can be negative), code = round(x / scale) + 2^(bits-1). Two 4-bit codes share a byte, the
 * earlier element in the low half.
 */
import { make } from './codec.ts'
import { externalInitializer } from './external.ts'
import type { TensorEntry } from './safetensors.ts'
import { attributeTypes, dataTypes, type OnnxModel, type OnnxNode, type OnnxTensor } from './schema.ts'
import type { Weights } from './weights.ts'
import { invalidFile } from './wire.ts'

export type QuantizedBits = 4 | 8

export interface QuantizedMatrix {
  /** `[N, ceil(K / 32), 4 * bits]` */
  readonly codes: Uint8Array
  /** `[N, ceil(K / 32)]` */
  readonly scales: Float32Array
}

export const blockSize = 32

/** Smaller matrices stay as they are: little to win, and Doge's importance (K rows) decides what is evicted. */
const smallestSide = 32

/**
 * Quantizes `[N, K]` row by row; the last block of a row is filled up with zeros.
 * @throws KvasirError `invalid-file` on weights that are not finite
 */
export function quantizeMatrix(matrix: Float32Array, rows: number, bits: QuantizedBits): QuantizedMatrix {
  const columns = matrix.length / rows
  const numBlocks = Math.ceil(columns / blockSize)
  const codes = new Uint8Array((rows * numBlocks * blockSize * bits) / 8)
  const scales = new Float32Array(rows * numBlocks)
  const block = new Float32Array(blockSize)
  for (let index = 0; index < scales.length; index++) {
    const row = Math.floor(index / numBlocks)
    const start = row * columns + (index % numBlocks) * blockSize
    const end = Math.min(start + blockSize, (row + 1) * columns)
    for (let i = 0; i < blockSize; i++) block[i] = start + i < end ? matrix[start + i]! : 0
    scales[index] = quantizeBlock(block, codes, (index * blockSize * bits) / 8, bits)
  }
  return { codes, scales }
}

/** Writes the codes of one block of 32 at byte `at`; returns its scale. */
function quantizeBlock(block: Float32Array, codes: Uint8Array, at: number, bits: QuantizedBits): number {
  const half = 2 ** (bits - 1)
  const scale = Math.fround(extremeOf(block) / -half)
  const perScale = scale === 0 ? 0 : 1 / scale
  for (let i = 0; i < blockSize; i++) {
    const code = Math.max(0, Math.min(2 * half - 1, Math.round(block[i]! * perScale) + half))
    if (bits === 8) codes[at + i] = code
    else codes[at + (i >> 1)]! |= i % 2 ? code << 4 : code
  }
  return scale
}

/** The element of largest magnitude, with its sign. */
function extremeOf(block: Float32Array): number {
  let extreme = 0
  for (let i = 0; i < block.length; i++) {
    const value = block[i]!
    if (!Number.isFinite(value)) throw invalidFile(`expected finite weights, got ${value}`)
    if (Math.abs(value) > Math.abs(extreme)) extreme = value
  }
  return extreme
}

/** The weights of a graph that are worth quantizing: `[N, K]` matrices of Gemm nodes with transB. */
export function quantizableWeights(model: OnnxModel, weights: Weights): TensorEntry[] {
  const found = new Map<string, TensorEntry>()
  for (const [node, name] of matrixProducts(model)) {
    const entry = weights.get(name)
    if (entry && isWorthQuantizing(entry) && isTransposed(node)) found.set(name, entry)
  }
  return [...found.values()]
}

/** Whether a matrix `[N, K]` of a product is large enough. */
export function isWorthQuantizing({ shape }: TensorEntry): boolean {
  return Math.min(...shape) >= smallestSide
}

/** Names of the two tensors that replace a weight. */
export function quantizedNames(name: string): { codes: string; scales: string } {
  return { codes: `${name}.codes`, scales: `${name}.scales` }
}

/**
 * The same graph with MatMulNBits in place of Gemm for every weight that `quantized` has.
 * @param quantized tensors by `quantizedNames`
 */
export function quantizeModel(model: OnnxModel, quantized: Weights, bits: QuantizedBits): OnnxModel {
  const products = new Map(matrixProducts(model))
  const columns = new Map(model.graph!.initializer.map(({ name, dims }) => [name!, Number(dims[1])]))
  const initializers = new Map<string, OnnxTensor>()
  const node = model.graph!.node.map((old) => {
    const name = products.get(old)
    const { codes, scales } = quantizedNames(name ?? '')
    const matrix = quantized.get(codes)
    if (!matrix) return old
    for (const key of [codes, scales]) initializers.set(key, initializerOf(quantized.get(key)!))
    return matMulNBits(old, { codes, scales, bits, inFeatures: columns.get(name!)!, outFeatures: matrix.shape[0]! })
  })
  const graph = model.graph!
  return { ...model, graph: { ...graph, node, initializer: [...graph.initializer, ...initializers.values()] } }
}

export interface ProductSizes {
  readonly bits: QuantizedBits
  readonly inFeatures: number
  readonly outFeatures: number
}

interface Product extends ProductSizes {
  readonly codes: string
  readonly scales: string
}

/** Attributes of MatMulNBits. */
export function matMulSettings({ bits, inFeatures, outFeatures }: ProductSizes): Readonly<Record<string, number>> {
  // accuracy_level 4 quantizes activations to int8 too: without it products with 8-bit weights are 200 times slower.
  return { K: inFeatures, N: outFeatures, bits, block_size: blockSize, accuracy_level: 4 }
}

function matMulNBits(old: OnnxNode, product: Product): OnnxNode {
  const { codes, scales } = product
  const [x, , bias] = old.input
  return make('Node', {
    name: old.name,
    opType: 'MatMulNBits',
    domain: 'com.microsoft',
    input: [x!, codes, scales, ...(bias ? ['', '', bias] : [])],
    output: old.output,
    attribute: Object.entries(matMulSettings(product)).map(([name, i]) =>
      make('Attribute', { name, type: attributeTypes.int, i }),
    ),
  })
}

/** Gemm nodes and the initializer that each multiplies with, directly or through a Cast. */
function matrixProducts({ graph }: OnnxModel): [OnnxNode, string][] {
  const casts = new Map(graph!.node.filter(({ opType }) => opType === 'Cast').map((node) => [node.output[0], node]))
  return graph!.node
    .filter(({ opType, domain }) => opType === 'Gemm' && !domain)
    .map((node) => [node, casts.get(node.input[1])?.input[0] ?? node.input[1]!])
}

function isTransposed({ attribute }: OnnxNode): boolean {
  return attribute.find(({ name }) => name === 'transB')?.i === 1
}

function initializerOf({ name, dtype, shape, file, offset, byteLength }: TensorEntry): OnnxTensor {
  const dataType = dtype === 'U8' ? dataTypes.uint8 : dataTypes.float
  return externalInitializer({ name, dataType, dims: shape, file, offset, byteLength })
}

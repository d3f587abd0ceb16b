/**
 * ONNX models of one attention node each, and the tensors that they take in a case. All have one output that is fetched,
 * `output`, `[1, T, H D]` or `[1, H, T, D]`.
 *
 * GroupQueryAttention is what exported models use: in a decode step past goes in and present comes out. The other two
 * get all keys as inputs and append nothing, which is less work than a step of a model. MultiHeadAttention knows no
 * groups: its keys and values are repeated for each query head.
 */
import type { FloatArray, FloatType } from '../../src/kernels/index.ts'
import { encodeModel, make } from '../../src/onnx/index.ts'
import { numQueries } from './cases.ts'
import type { AttentionCase } from './contract.ts'
import { createInput } from './inputs.ts'

export interface Feed {
  readonly type: 'float32' | 'float16' | 'int32'
  readonly dims: readonly number[]
  readonly data: FloatArray | Int32Array
}

export interface PeerGraph {
  readonly model: Uint8Array
  readonly feeds: Readonly<Record<string, Feed>>
  /** Order of the result: tokens or heads outside. */
  readonly outputLayout: 'token-major' | 'head-major'
}

export const operators = ['GroupQueryAttention', 'MultiHeadAttention', 'Attention'] as const
export type Operator = (typeof operators)[number]

const elementTypes = { float32: 1, int32: 6, float16: 10 } as const
/** The newest opset whose Attention ONNX Runtime 1.30 runs on CPU. */
const operatorSets = [
  make('OperatorSet', { domain: '', version: 24 }),
  make('OperatorSet', { domain: 'com.microsoft', version: 1 }),
]

export function createPeerGraph(operator: Operator, attentionCase: AttentionCase, dtype: FloatType): PeerGraph {
  return builders[operator](attentionCase, createTensors(attentionCase, dtype))
}

type Tensors = ReturnType<typeof createTensors>
type Build = (attentionCase: AttentionCase, tensors: Tensors) => PeerGraph

const builders = {
  GroupQueryAttention: (attentionCase, tensors) => {
    const { heads: H, kvHeads: K, headDim: D, length, window, phase } = attentionCase
    const T = numQueries(attentionCase)
    const { query, key, value, float } = tensors
    const [keys, values] = [key(), value()].map((rows) => splitLast(rows, attentionCase))
    const isStep = phase === 'decode' && length > 1
    const feeds = {
      query: float(query(), [1, T, H * D]),
      key: float(keys!.last, [1, T, K * D]),
      value: float(values!.last, [1, T, K * D]),
      ...(isStep && { past_key: float(keys!.past, [1, K, length - 1, D]) }),
      ...(isStep && { past_value: float(values!.past, [1, K, length - 1, D]) }),
      seqlens_k: { type: 'int32', dims: [1], data: Int32Array.of(length - 1) },
      total_sequence_length: { type: 'int32', dims: [1], data: Int32Array.of(length) },
    } satisfies Record<string, Feed>
    const past = isStep ? ['past_key', 'past_value'] : ['', '']
    const input = ['query', 'key', 'value', ...past, 'seqlens_k', 'total_sequence_length']
    const attributes = { num_heads: H, kv_num_heads: K, ...(window !== null && { local_window_size: window }) }
    const presents = isStep ? ['present_key', 'present_value'] : []
    return build({ operator: 'GroupQueryAttention', input, presents, attributes, feeds, layout: 'token-major' })
  },

  MultiHeadAttention: (attentionCase, { query, key, value, float }) => {
    const { heads: H, headDim: D, length, phase } = attentionCase
    const T = numQueries(attentionCase)
    const dims = phase === 'decode' ? [1, H, length, D] : [1, length, H * D]
    const feeds = {
      query: float(query(), [1, T, H * D]),
      key: float(repeatHeads(key(), attentionCase), dims),
      value: float(repeatHeads(value(), attentionCase), dims),
    }
    const attributes = { num_heads: H, ...(phase !== 'decode' && { unidirectional: 1 }) }
    const input = ['query', 'key', 'value']
    return build({ operator: 'MultiHeadAttention', input, presents: [], attributes, feeds, layout: 'token-major' })
  },

  Attention: (attentionCase, { query, key, value, float }) => {
    const { heads: H, kvHeads: K, headDim: D, length, phase } = attentionCase
    const isStep = phase === 'decode'
    const dims = (count: number, tokens: number) => (isStep ? [1, count, tokens, D] : [1, tokens, count * D])
    const feeds = {
      query: float(query(), dims(H, numQueries(attentionCase))),
      key: float(key(), dims(K, length)),
      value: float(value(), dims(K, length)),
    }
    const attributes: Record<string, number> = isStep ? {} : { q_num_heads: H, kv_num_heads: K, is_causal: 1 }
    const layout = isStep ? 'head-major' : 'token-major'
    return build({ operator: 'Attention', input: ['query', 'key', 'value'], presents: [], attributes, feeds, layout })
  },
} as const satisfies Record<Operator, Build>

function createTensors(attentionCase: AttentionCase, dtype: FloatType) {
  const { heads, kvHeads, headDim, length } = attentionCase
  const rows = kvHeads * length * headDim
  const type = dtype === 'f16' ? 'float16' : 'float32'
  return {
    query: () => createInput(numQueries(attentionCase) * heads * headDim, dtype, 'query'),
    key: () => createInput(rows, dtype, 'key'),
    value: () => createInput(rows, dtype, 'value'),
    float: (data: FloatArray, dims: readonly number[]): Feed => ({ type, dims, data }),
  }
}

/** `[K, S, D]` as past `[K, S - 1, D]` and last `[K, D]`; of a prefill all is new. */
function splitLast(rows: FloatArray, { kvHeads, length, headDim, phase }: AttentionCase) {
  if (phase !== 'decode') return { past: rows.subarray(0, 0), last: rows }
  const past = rows.slice(0, kvHeads * (length - 1) * headDim)
  const last = rows.slice(0, kvHeads * headDim)
  for (let k = 0; k < kvHeads; k++) {
    const [begin, end] = [k * length * headDim, (k + 1) * length * headDim]
    past.set(rows.subarray(begin, end - headDim), k * (length - 1) * headDim)
    last.set(rows.subarray(end - headDim, end), k * headDim)
  }
  return { past, last }
}

/** KV heads repeated to H: `[K, S, D]` to `[H, S, D]`, of a prefill `[N, K, D]` to `[N, H, D]`. */
function repeatHeads(rows: FloatArray, { heads, kvHeads, headDim, length, phase }: AttentionCase): FloatArray {
  const group = heads / kvHeads
  if (group === 1) return rows
  const size = phase === 'decode' ? length * headDim : headDim
  const repeated =
    rows instanceof Float32Array ? new Float32Array(rows.length * group) : new Uint16Array(rows.length * group)
  for (let at = 0; at < rows.length / size; at++) {
    const row = rows.subarray(at * size, (at + 1) * size)
    for (let g = 0; g < group; g++) repeated.set(row, (at * group + g) * size)
  }
  return repeated
}

interface Parts {
  readonly operator: Operator
  readonly input: readonly string[]
  readonly presents: readonly string[]
  readonly attributes: Readonly<Record<string, number>>
  readonly feeds: Readonly<Record<string, Feed>>
  readonly layout: PeerGraph['outputLayout']
}

function build({ operator, input, presents, attributes, feeds, layout }: Parts): PeerGraph {
  const output = ['output', ...presents]
  const node = make('Node', {
    opType: operator,
    domain: operator === 'Attention' ? '' : 'com.microsoft',
    input: [...input],
    output,
    attribute: Object.entries(attributes).map(([name, i]) => make('Attribute', { name, type: 2, i })),
  })
  const { type } = feeds.query!
  const graph = make('Graph', {
    name: 'attention',
    node: [node],
    input: Object.entries(feeds).map(([name, feed]) => valueInfo(name, feed.type, feed.dims)),
    output: output.map((name) => valueInfo(name, type)),
  })
  return {
    model: encodeModel(make('Model', { irVersion: 10, graph, opsetImport: operatorSets })),
    feeds,
    outputLayout: layout,
  }
}

/** Without `dims` the shape is left to the node. */
function valueInfo(name: string, type: Feed['type'], dims?: readonly number[]) {
  const shape = dims && make('Shape', { dim: dims.map((dimValue) => make('Dimension', { dimValue })) })
  const tensorType = make('TensorType', { elemType: elementTypes[type], ...(shape && { shape }) })
  return make('ValueInfo', { name, type: make('Type', { tensorType }) })
}

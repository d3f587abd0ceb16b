/** One decode step of onnxruntime's own attention: a model with a single GroupQueryAttention node. */
import { InferenceSession, Tensor } from 'onnxruntime-node'
import { encodeModel, make } from '../src/onnx/index.ts'

export interface GqaShape {
  readonly numHeads: number
  readonly numKvHeads: number
  readonly headDim: number
  /** Rows after the step: past is one less. */
  readonly kvLength: number
  readonly threads: number
}

/** f32 `query [H, D]`, `key` and `value` `[K, S, D]`, of which the last row of each head is the new token's. */
export interface GqaInputs {
  readonly query: Float32Array
  readonly key: Float32Array
  readonly value: Float32Array
}

export interface GqaStep {
  /** Runs the step and gives `[H, D]`. */
  run(): Promise<Float32Array>
  release(): Promise<void>
}

const floatType = 1
const intType = 6

export async function openGroupQueryAttention(shape: GqaShape, inputs: GqaInputs): Promise<GqaStep> {
  const session = await InferenceSession.create(encodeModel(createModel(shape)), {
    intraOpNumThreads: shape.threads,
    interOpNumThreads: 1,
  })
  const feeds = createFeeds(shape, inputs)
  return {
    run: async () => (await session.run(feeds, ['output'])).output!.data as Float32Array,
    release: () => session.release(),
  }
}

function createModel({ numHeads, numKvHeads, headDim }: GqaShape) {
  const value = (name: string, elemType: number, dims: readonly (number | string)[]) => {
    const dim = dims.map((size) =>
      make('Dimension', typeof size === 'number' ? { dimValue: size } : { dimParam: size }),
    )
    return make('ValueInfo', {
      name,
      type: make('Type', { tensorType: make('TensorType', { elemType, shape: make('Shape', { dim }) }) }),
    })
  }
  const cache = [1, numKvHeads, 'S', headDim] as const
  const node = make('Node', {
    opType: 'GroupQueryAttention',
    domain: 'com.microsoft',
    input: ['query', 'key', 'value', 'past_key', 'past_value', 'seqlens_k', 'total_sequence_length'],
    output: ['output', 'present_key', 'present_value'],
    attribute: [
      make('Attribute', { name: 'num_heads', type: 2, i: numHeads }),
      make('Attribute', { name: 'kv_num_heads', type: 2, i: numKvHeads }),
    ],
  })
  const graph = make('Graph', {
    name: 'step',
    node: [node],
    input: [
      value('query', floatType, [1, 1, numHeads * headDim]),
      value('key', floatType, [1, 1, numKvHeads * headDim]),
      value('value', floatType, [1, 1, numKvHeads * headDim]),
      value('past_key', floatType, cache),
      value('past_value', floatType, cache),
      value('seqlens_k', intType, [1]),
      value('total_sequence_length', intType, [1]),
    ],
    output: [
      value('output', floatType, [1, 1, numHeads * headDim]),
      value('present_key', floatType, [1, numKvHeads, 'N', headDim]),
      value('present_value', floatType, [1, numKvHeads, 'N', headDim]),
    ],
  })
  const opsetImport = [
    make('OperatorSet', { domain: '', version: 21 }),
    make('OperatorSet', { domain: 'com.microsoft', version: 1 }),
  ]
  return make('Model', { irVersion: 10, graph, opsetImport })
}

function createFeeds({ numHeads, numKvHeads: K, headDim: D, kvLength: S }: GqaShape, { query, key, value }: GqaInputs) {
  const split = (rows: Float32Array) => {
    const past = new Float32Array(K * (S - 1) * D)
    const last = new Float32Array(K * D)
    for (let k = 0; k < K; k++) {
      past.set(rows.subarray(k * S * D, (k * S + S - 1) * D), k * (S - 1) * D)
      last.set(rows.subarray((k * S + S - 1) * D, (k + 1) * S * D), k * D)
    }
    return { past: new Tensor('float32', past, [1, K, S - 1, D]), last: new Tensor('float32', last, [1, 1, K * D]) }
  }
  const [keys, values] = [split(key), split(value)]
  return {
    query: new Tensor('float32', query, [1, 1, numHeads * D]),
    ...{ key: keys.last, value: values.last, past_key: keys.past, past_value: values.past },
    seqlens_k: new Tensor('int32', Int32Array.of(S - 1), [1]),
    total_sequence_length: new Tensor('int32', Int32Array.of(S), [1]),
  }
}

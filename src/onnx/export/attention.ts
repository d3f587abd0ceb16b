/** Attention of an exported graph: com.microsoft GroupQueryAttention with past and present keys and values. */
import type { RotaryEncoding } from '../../positions/index.ts'
import { KvasirError } from '../../tensor/error.ts'
import type { AttentionNode } from '../attention-node.ts'
import type { AttributeValue } from '../builder.ts'
import { make } from '../codec.ts'
import { dataTypes } from '../schema.ts'
import type { GraphWriter } from './graph-writer.ts'
import { addRotaryCache, type RotaryCache } from './rotary-cache.ts'
import type { FloatType } from './weight-plan.ts'

export interface AttentionOptions {
  readonly type: FloatType
  readonly maxPositions: number
  /** Of each attention node; undefined where positions do nothing. */
  readonly rotary: readonly (RotaryEncoding | undefined)[]
}

/** Lengths that all attention nodes share, from attention_mask `[B, total]`. */
interface Lengths {
  /** int32 `[B]`: valid tokens of each row, less one. */
  readonly seqlens: string
  /** int32 scalar: the longest. */
  readonly total: string
  /** int64 `[B]`: valid tokens of each row. */
  readonly counts: string
  /** int64 scalar, as `total`. */
  readonly longest: string
}

export class AttentionWriter {
  readonly #graph: GraphWriter
  readonly #options: AttentionOptions
  readonly #lengths: Lengths
  readonly #caches = new Map<RotaryEncoding, RotaryCache>()

  constructor(graph: GraphWriter, options: AttentionOptions) {
    this.#graph = graph
    this.#options = options
    this.#lengths = addLengths(graph)
  }

  /** @param inputs query, key and value, `[B, S, heads * headDim]` each, before rotation; returns `[B, S, H * D]` */
  add(node: AttentionNode, inputs: readonly [string, string, string]): string {
    const graph = this.#graph
    const { layer, numHeads, numKvHeads, headDim, scale, softcap, window } = node
    if (headDim % 8) throw new KvasirError('unsupported', 'onnx', refusal(`a head dim in multiples of 8`, headDim))
    const rotation = this.#rotation(node)
    const attributes: Record<string, AttributeValue> = {
      num_heads: { int: numHeads },
      kv_num_heads: { int: numKvHeads },
      do_rotary: { int: rotation ? 1 : 0 },
      ...(scale !== undefined && { scale: { float: scale } }),
      ...(softcap !== undefined && { softcap: { float: softcap } }),
      ...(window !== undefined && { local_window_size: { int: window } }),
    }
    const { seqlens, total } = this.#lengths
    const past = this.#addState(layer, numKvHeads, headDim)
    const optional = rotation ? [rotation.cos, rotation.sin] : []
    if (rotation?.switchAt !== undefined) optional.push(addPositions(graph, this.#lengths, rotation.switchAt))
    const output = `/model/layers.${layer}/attn/GroupQueryAttention`
    const outputs = [output, `present.${layer}.key`, `present.${layer}.value`]
    return graph.node('GroupQueryAttention', [...inputs, ...past, seqlens, total, ...optional], outputs, {
      domain: 'com.microsoft',
      attributes,
    })
  }

  /** past_key_values.N.key and value, which become inputs of the graph as present.N.* become outputs. */
  #addState(layer: number, numKvHeads: number, headDim: number): string[] {
    const dataType = this.#options.type === 'f16' ? dataTypes.float16 : dataTypes.float
    return ['key', 'value'].map((part) => {
      const axes = (length: string) => ['batch_size', numKvHeads, length, headDim]
      this.#graph.output(`present.${layer}.${part}`, dataType, axes('total_sequence_length'))
      return this.#graph.input(`past_key_values.${layer}.${part}`, dataType, axes('past_sequence_length'))
    })
  }

  #rotation({ layer, headDim }: AttentionNode): RotaryCache | undefined {
    const { rotary, type, maxPositions } = this.#options
    const encoding = rotary[layer]
    if (!encoding) return undefined
    const suffix = this.#caches.size === 0 ? '' : `.${this.#caches.size}`
    const known = this.#caches.get(encoding)
    const cache = known ?? addRotaryCache(this.#graph, suffix, encoding, { type, maxPositions, headDim })
    this.#caches.set(encoding, cache)
    return cache
  }
}

function addLengths(graph: GraphWriter): Lengths {
  const prefix = '/model/attn_mask_reformat'
  const int32 = { to: { int: dataTypes.int32 } }
  const counts = graph.node('ReduceSum', ['attention_mask', graph.integers([1])], `${prefix}/ReduceSum`, {
    attributes: { keepdims: { int: 0 } },
  })
  const last = graph.node('Sub', [counts, graph.integers([1])], `${prefix}/Sub`)
  const shape = graph.node('Shape', ['attention_mask'], `${prefix}/Shape`)
  const total = graph.node('Gather', [shape, scalar(graph, 1)], `${prefix}/Gather`)
  return {
    counts,
    longest: total,
    seqlens: graph.node('Cast', [last], `${prefix}/seqlens_k/Cast`, { attributes: int32 }),
    total: graph.node('Cast', [total], `${prefix}/total_sequence_length/Cast`, { attributes: int32 }),
  }
}

/**
 * Rows of a cache that holds two tables, int64 `[B, S]`: the positions of the new tokens, in the second table when the
 * sequence is longer than `switchAt`. A first prompt begins at 0 whatever its row's length.
 */
function addPositions(graph: GraphWriter, { counts, longest }: Lengths, switchAt: number): string {
  const prefix = `/model/positions.${switchAt}`
  return graph.once(prefix, () => {
    const [zero, one] = [scalar(graph, 0), scalar(graph, 1)]
    const shape = graph.node('Shape', ['input_ids'], `${prefix}/Shape`)
    const length = graph.node('Gather', [shape, one], `${prefix}/Gather`)
    const before = graph.node('Max', [graph.node('Sub', [counts, length], `${prefix}/Sub`), zero], `${prefix}/Max`)
    const isLong = graph.node('Greater', [longest, scalar(graph, switchAt)], `${prefix}/Greater`)
    const offset = graph.node('Where', [isLong, scalar(graph, switchAt), zero], `${prefix}/Where`)
    const first = graph.node('Add', [before, offset], `${prefix}/Add`)
    const column = graph.node('Unsqueeze', [first, graph.integers([1])], `${prefix}/Unsqueeze`)
    const steps = graph.node('Range', [zero, length, one], `${prefix}/Range`)
    return graph.node('Add', [column, steps], `${prefix}/Add_1`)
  })
}

/** int64 without axes. */
function scalar(graph: GraphWriter, value: number): string {
  const { int64: dataType } = dataTypes
  return graph.constant(make('Tensor', { name: `int64.scalar.${value}`, dataType, int64Data: [value] }))
}

function refusal(expected: string, got: number): string {
  return `GroupQueryAttention needs ${expected}, got ${got}`
}

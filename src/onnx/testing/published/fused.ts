/** Fused attention nodes with what exporters put around them. */

import type { AttributeValue } from '../../builder.ts'
import { make } from '../../codec.ts'
import { attributeTypes, dataTypes } from '../../schema.ts'
import type { AttentionWriter } from './scaffold.ts'
import { PublishedWriter } from './writer.ts'

export interface FusedOptions {
  /** Q, K and V as one projection. */
  readonly isPacked?: boolean
  /** Rotation inside the node, by RotaryEmbedding nodes in front of it, or none. */
  readonly rotation?: 'inside' | 'nodes' | 'none'
  readonly isInterleaved?: boolean
  /** Components of a head that are rotated (default: all). */
  readonly rotaryDim?: number
  /** Further attributes. */
  readonly attributes?: Readonly<Record<string, AttributeValue>>
  /** RMS norm of each query and key head. */
  readonly hasNorms?: boolean
  readonly hasSinks?: boolean
  /** An additive mask: causal, a window, ALiBi or one that means something else. */
  readonly bias?: MaskKind
  /** Layers with that mask (default: all). */
  readonly biasLayers?: readonly number[]
  /** Other tables beyond so many tokens, chosen by an If, with frequencies that are smaller by this factor. */
  readonly long?: { readonly length: number; readonly factor: number }
  /** local_window_size of odd layers. */
  readonly oddWindow?: number
}

/** `holes`: every third key is hidden; `chunks`: a query sees its own eight positions; `strange`: no mask at all. */
export type MaskKind = 'causal' | 'alibi' | 'strange' | 'holes' | 'chunks'

const contrib = 'com.microsoft'

/** Inputs of step graphs and past keys and values, as all styles but GPT-2's have them. */
export function stepInputs(w: PublishedWriter, hasPositions: boolean, numKvHeads = w.settings.numKvHeads): void {
  const { layers, headDim } = w.settings
  w.input('input_ids', dataTypes.int64, ['batch_size', 'sequence_length'])
  w.input('attention_mask', dataTypes.int64, ['batch_size', 'total_sequence_length'])
  if (hasPositions) w.input('position_ids', dataTypes.int64, ['batch_size', 'sequence_length'])
  for (let layer = 0; layer < layers; layer++) {
    for (const part of ['key', 'value']) {
      const axes = (length: string) => ['batch_size', numKvHeads, length, headDim]
      w.input(`past_key_values.${layer}.${part}`, w.float, axes('past_sequence_length'))
      w.output(`present.${layer}.${part}`, w.float, axes('total_sequence_length'))
    }
  }
}

export function state(layer: number): { past: string[]; present: string[] } {
  return {
    past: [`past_key_values.${layer}.key`, `past_key_values.${layer}.value`],
    present: [`present.${layer}.key`, `present.${layer}.value`],
  }
}

/** com.microsoft GroupQueryAttention as onnxruntime-genai builds it. */
export function groupQuery(w: PublishedWriter, options: FusedOptions): AttentionWriter {
  const { rotation = 'inside' } = options
  stepInputs(w, rotation === 'nodes')
  const lengths = addLengths(w)
  const tables =
    rotation === 'none' ? ['', ''] : options.long ? longTables(w, options.long) : rotaryTables(w, options.rotaryDim)
  const bias = options.bias ? additiveMask(w, options.bias) : ''
  return (_, layer, x) => {
    const { numHeads, numKvHeads } = w.settings
    const prefix = `/model/layers.${layer}/attn`
    const inputs = projections(w, layer, x, options)
    if (rotation === 'nodes') rotateInputs(w, inputs, tables, options)
    const { past, present } = state(layer)
    const own = rotation === 'inside' ? tables : ['', '']
    const sinks = options.hasSinks ? w.random(`${prefix}.sinks`, [numHeads], 0, 1) : ''
    const all = [
      ...inputs,
      ...past,
      ...lengths,
      ...own,
      '',
      options.biasLayers?.includes(layer) === false ? '' : bias,
      sinks,
    ]
    const window = options.oddWindow !== undefined && layer % 2 ? options.oddWindow : -1
    return w.node('GroupQueryAttention', trimmed(all), [`${prefix}/GroupQueryAttention/output_0`, ...present], {
      domain: contrib,
      attributes: {
        ...{ num_heads: { int: numHeads }, kv_num_heads: { int: numKvHeads } },
        ...{ do_rotary: { int: rotation === 'inside' ? 1 : 0 }, local_window_size: { int: window } },
        rotary_interleaved: { int: options.isInterleaved ? 1 : 0 },
        ...options.attributes,
      },
    })
  }
}

/** com.microsoft MultiHeadAttention: as many KV heads as heads, causal by an additive mask or by itself. */
export function multiHead(w: PublishedWriter, options: FusedOptions & { isUnidirectional?: boolean }): AttentionWriter {
  const { numHeads } = w.settings
  stepInputs(w, true, numHeads)
  const tables = options.rotation === 'none' ? ['', ''] : rotaryTables(w)
  const bias = options.isUnidirectional ? '' : additiveMask(w, options.bias ?? 'causal')
  return (_, layer, x) => {
    const inputs = projections(w, layer, x, options, numHeads)
    if (options.rotation !== 'none') rotateInputs(w, inputs, tables, options)
    const { past, present } = state(layer)
    const { hiddenSize: _hidden, headDim } = w.settings
    const vector = options.hasNorms ? w.random(`mha.${layer}.bias`, [3 * numHeads * headDim], 0, 0.3) : ''
    const all = [...inputs, vector, '', bias, ...past]
    const outputs = [`/model/layers.${layer}/attn/MultiHeadAttention/output_0`, ...present]
    return w.node('MultiHeadAttention', all, outputs, {
      domain: contrib,
      attributes: {
        num_heads: { int: numHeads },
        ...(options.isUnidirectional && { unidirectional: { int: 1 } }),
        ...options.attributes,
      },
    })
  }
}

/** com.microsoft Attention as the GPT-2 fusion leaves it: projection inside, past `[2, B, H, P, D]`. */
export function contribAttention(w: PublishedWriter): AttentionWriter {
  const { layers, numHeads, headDim, hiddenSize } = w.settings
  w.input('input_ids', dataTypes.int64, ['batch_size', 'sequence_length'])
  w.input('position_ids', dataTypes.int64, ['batch_size', 'sequence_length'])
  w.input('attention_mask', dataTypes.int64, ['batch_size', 'total_sequence_length'])
  for (let layer = 0; layer < layers; layer++) {
    w.input(`past_${layer}`, w.float, [2, 'batch_size', numHeads, 'past_sequence_length', headDim])
    w.output(`present_${layer}`, w.float, [2, 'batch_size', numHeads, 'total_sequence_length', headDim])
  }
  const mask = w.node('Cast', ['attention_mask'], undefined, { attributes: { to: { int: dataTypes.int32 } } })
  return (_, layer, x) => {
    const size = 3 * numHeads * headDim
    const weight = w.random(`attn.${layer}.weight`, [hiddenSize, size], 0, 1 / Math.sqrt(hiddenSize))
    const bias = w.random(`attn.${layer}.bias`, [size], 0, 0.3)
    return w.node('Attention', [x, weight, bias, mask, `past_${layer}`], [`attn.${layer}`, `present_${layer}`], {
      domain: contrib,
      attributes: { num_heads: { int: numHeads }, unidirectional: { int: 1 } },
    })
  }
}

/** ai.onnx Attention: flat rows and causal by itself, or heads first with a boolean mask. */
export function standard(w: PublishedWriter, options: { isHeadsFirst: boolean; softcap?: number }): AttentionWriter {
  const { numHeads, numKvHeads, headDim } = w.settings
  stepInputs(w, true)
  const tables = rotaryTables(w)
  const mask = options.isHeadsFirst ? booleanMask(w) : ''
  return (_, layer, x) => {
    const inputs = projections(w, layer, x, {})
    const heads = [numHeads, numKvHeads, numKvHeads]
    if (options.isHeadsFirst) {
      for (const [i, name] of inputs.entries()) {
        const split = w.node('Reshape', [name, w.integers([0, 0, heads[i]!, headDim])])
        inputs[i] = w.node('Transpose', [split], undefined, { attributes: { perm: { ints: [0, 2, 1, 3] } } })
      }
    }
    for (const i of [0, 1]) {
      const attributes = { num_heads: { int: heads[i]! } }
      inputs[i] = w.node('RotaryEmbedding', [inputs[i]!, ...tables, 'position_ids'], undefined, { attributes })
    }
    const { past, present } = state(layer)
    const output = `/layers.${layer}/Attention`
    w.node('Attention', [...inputs, mask, ...past], [output, ...present], {
      attributes: {
        ...(options.isHeadsFirst ? {} : { q_num_heads: { int: numHeads }, kv_num_heads: { int: numKvHeads } }),
        is_causal: { int: options.isHeadsFirst ? 0 : 1 },
        ...(options.softcap !== undefined && { softcap: { float: options.softcap } }),
      },
    })
    if (!options.isHeadsFirst) return output
    const rows = w.node('Transpose', [output], undefined, { attributes: { perm: { ints: [0, 2, 1, 3] } } })
    return w.node('Reshape', [rows, w.integers([0, 0, numHeads * headDim])])
  }
}

function projections(w: PublishedWriter, layer: number, x: string, options: FusedOptions, kvHeads?: number): string[] {
  const { numHeads, numKvHeads = 0, headDim, hiddenSize } = { ...w.settings, ...(kvHeads && { numKvHeads: kvHeads }) }
  const prefix = `model.layers.${layer}.attn`
  const sizes = [numHeads, numKvHeads, numKvHeads].map((heads) => heads * headDim)
  if (options.isPacked) {
    const all = sizes.reduce((a, b) => a + b)
    return [w.linear(x, `${prefix}.qkv_proj`, hiddenSize, all, true), '', '']
  }
  const names = ['q_proj', 'k_proj', 'v_proj']
  const inputs = names.map((name, i) => w.linear(x, `${prefix}.${name}`, hiddenSize, sizes[i]!, i > 0))
  if (!options.hasNorms || kvHeads) return inputs
  for (const i of [0, 1]) {
    const split = w.node('Reshape', [inputs[i]!, w.integers([0, -1, sizes[i]! / headDim, headDim])])
    const weight = w.random(`${prefix}.norm${i}.weight`, [headDim], 1, 0.2)
    const attributes = { epsilon: { float: 1e-6 } }
    const normed = w.node('SimplifiedLayerNormalization', [split, weight], undefined, { attributes })
    inputs[i] = w.node('Reshape', [normed, w.integers([0, -1, sizes[i]!])])
  }
  return inputs
}

/** Queries and keys through RotaryEmbedding nodes of the contrib domain. */
function rotateInputs(w: PublishedWriter, inputs: string[], tables: readonly string[], options: FusedOptions): void {
  const { numHeads, numKvHeads } = w.settings
  for (const i of [0, 1]) {
    const attributes = {
      interleaved: { int: options.isInterleaved ? 1 : 0 },
      ...(options.rotaryDim !== undefined && {
        num_heads: { int: i === 0 ? numHeads : numKvHeads },
        rotary_embedding_dim: { int: options.rotaryDim },
      }),
    }
    inputs[i] = w.node('RotaryEmbedding', [inputs[i]!, 'position_ids', ...tables], undefined, {
      domain: contrib,
      attributes,
    })
  }
}

/** If (total > length) the long tables else the short ones, as initializers of its branches. */
function longTables(w: PublishedWriter, { length, factor }: { length: number; factor: number }): [string, string] {
  const { total } = stepLengths(w)
  const condition = w.node('Greater', [total, w.scalar(length)])
  const branch = (name: string, divisor: number) => {
    const inner = new PublishedWriter(w.settings)
    for (const table of rotaryTables(inner, undefined, divisor))
      inner.output(table, w.float, [w.settings.maxPositions, w.settings.headDim / 2])
    return { name, graph: make('Graph', { name, initializer: inner.tensors, output: inner.outputs }) }
  }
  const branches = [branch('then_branch', factor), branch('else_branch', 1)]
  w.node('If', [condition], ['cos_cache', 'sin_cache'])
  for (const { name, graph } of branches) {
    w.nodes.at(-1)!.attribute.push(make('Attribute', { name, type: attributeTypes.graph, g: graph }))
  }
  return ['cos_cache', 'sin_cache']
}

/** cos_cache and sin_cache `[positions, R]`. */
function rotaryTables(w: PublishedWriter, rotaryDim = w.settings.headDim, divisor = 1): [string, string] {
  const { maxPositions, theta } = w.settings
  const pairs = rotaryDim / 2
  const angle = (i: number): number => (Math.floor(i / pairs) * theta ** (-(i % pairs) / pairs)) / divisor
  const table = (of: (angle: number) => number): number[] =>
    Array.from({ length: maxPositions * pairs }, (_, i) => of(angle(i)))
  const dims = [maxPositions, pairs]
  return [w.tensor('cos_cache', table(Math.cos), dims), w.tensor('sin_cache', table(Math.sin), dims)]
}

function addLengths(w: PublishedWriter): [string, string] {
  const int32 = { attributes: { to: { int: dataTypes.int32 } } }
  const sum = w.node('ReduceSum', ['attention_mask', w.integers([1])], '/model/attn_mask_reformat/ReduceSum', {
    attributes: { keepdims: { int: 0 } },
  })
  const last = w.node('Sub', [sum, w.integers([1])])
  const shape = w.node('Shape', ['attention_mask'])
  const total = w.node('Gather', [shape, w.scalar(1)], undefined, { attributes: { axis: { int: 0 } } })
  return [w.node('Cast', [last], undefined, int32), w.node('Cast', [total], undefined, int32)]
}

/** Sizes of a step as scalars: new tokens and all tokens. */
export function stepLengths(w: PublishedWriter): { fresh: string; total: string } {
  const size = (name: string): string =>
    w.node('Gather', [w.node('Shape', [name]), w.scalar(1)], undefined, { attributes: { axis: { int: 0 } } })
  return { fresh: size('input_ids'), total: size('attention_mask') }
}

/** `[1, 1, S, T]`: query positions and key positions, compared by an operator. */
function positionGrid(w: PublishedWriter): { queries: string; keys: string; total: string } {
  const { fresh, total } = stepLengths(w)
  const keys = w.node('Range', [w.scalar(0), total, w.scalar(1)])
  const past = w.node('Sub', [total, fresh])
  const queries = w.node('Range', [past, total, w.scalar(1)])
  return {
    queries: w.node('Unsqueeze', [queries, w.integers([1])]),
    keys: w.node('Unsqueeze', [keys, w.integers([0])]),
    total,
  }
}

export function booleanMask(w: PublishedWriter, window?: number): string {
  const { queries, keys } = positionGrid(w)
  let visible = w.node('LessOrEqual', [keys, queries])
  if (window !== undefined) {
    const oldest = w.node('Sub', [queries, w.integers([window], [1])])
    visible = w.node('And', [visible, w.node('Greater', [keys, oldest])])
  }
  const padding = w.node('Cast', ['attention_mask'], undefined, { attributes: { to: { int: dataTypes.bool } } })
  const wide = w.node('Unsqueeze', [padding, w.integers([1, 2])])
  return w.node('And', [w.node('Unsqueeze', [visible, w.integers([0, 1])]), wide])
}

/** `[1, 1 or H, S, T]` in the type of activations; what is hidden gets the least number of it. */
export function additiveMask(w: PublishedWriter, kind: MaskKind, window?: number): string {
  const least = w.float === dataTypes.float16 ? -65504 : -3.4028234663852886e38
  const visible = kind === 'holes' || kind === 'chunks' ? oddMask(w, kind) : booleanMask(w, window)
  const mask = w.node('Where', [visible, w.floats([0]), w.floats([least])])
  if (kind === 'causal' || kind === 'holes' || kind === 'chunks') return mask
  const { numHeads } = w.settings
  const { queries, keys } = positionGrid(w)
  const distance = w.node('Cast', [w.node('Sub', [keys, queries])], undefined, { attributes: { to: { int: w.float } } })
  const slopes = Array.from({ length: numHeads }, (_, h) => (kind === 'alibi' ? 2 ** ((-8 * (h + 1)) / numHeads) : 0.3))
  const bias = w.node('Mul', [
    w.floats(slopes, [1, numHeads, 1, 1]),
    w.node('Unsqueeze', [distance, w.integers([0, 1])]),
  ])
  return w.node('Add', [mask, bias])
}

function oddMask(w: PublishedWriter, kind: 'holes' | 'chunks'): string {
  const { queries, keys } = positionGrid(w)
  const chunk = (positions: string): string => w.node('Div', [positions, w.scalar(8)])
  const isSeen =
    kind === 'chunks'
      ? w.node('Equal', [chunk(keys), chunk(queries)])
      : w.node('Not', [w.node('Equal', [w.node('Mod', [keys, w.scalar(3)]), w.scalar(1)])])
  return w.node('And', [booleanMask(w), w.node('Unsqueeze', [isSeen, w.integers([0, 1])])])
}

/** Absent inputs at the end are left out. */
function trimmed(inputs: readonly string[]): string[] {
  const last = inputs.findLastIndex((name) => name !== '')
  return inputs.slice(0, last + 1)
}

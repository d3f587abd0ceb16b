/** Fused attention nodes with what exporters put around them. */
import type { AttributeValue } from '../../builder.ts'
import { dataTypes } from '../../schema.ts'
import { additiveMask, booleanMask, type MaskKind } from './masks.ts'
import type { AttentionWriter } from './scaffold.ts'
import { state, stepInputs } from './steps.ts'
import { longTables, rotaryTables } from './tables.ts'
import type { PublishedWriter } from './writer.ts'

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

const contrib = 'com.microsoft'

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

/** Absent inputs at the end are left out. */
function trimmed(inputs: readonly string[]): string[] {
  const last = inputs.findLastIndex((name) => name !== '')
  return inputs.slice(0, last + 1)
}

/** Attention whose caches have other forms than `[B, K, P, D]`: BLOOM's and GPT-BigCode's. */
import { dataTypes } from '../../schema.ts'
import { booleanMask } from './masks.ts'
import { type AttentionWriter, conv1d } from './scaffold.ts'
import type { PublishedWriter } from './writer.ts'

const least = -3.4028234663852886e38

function inputs(w: PublishedWriter): void {
  w.input('input_ids', dataTypes.int64, ['batch_size', 'sequence_length'])
  w.input('attention_mask', dataTypes.int64, ['batch_size', 'total_sequence_length'])
}

/** Past and new rows, along an axis, under the names of a layer. */
function append(w: PublishedWriter, layer: number, part: string, fresh: string, axes: readonly (number | string)[]) {
  const place = (name: string) => axes.map((axis) => (axis === 'length' ? name : axis))
  const past = w.input(`past_key_values.${layer}.${part}`, w.float, place('past_sequence_length'))
  w.output(`present.${layer}.${part}`, w.float, place('past_sequence_length + 1'))
  const axis = axes.indexOf('length')
  return w.node('Concat', [past, fresh], `present.${layer}.${part}`, { attributes: { axis: { int: axis } } })
}

function axisOf(w: PublishedWriter, name: string, axis: number): string {
  return w.node('Gather', [w.node('Shape', [name]), w.integers([axis])], undefined, {
    attributes: { axis: { int: 0 } },
  })
}

function reshape(w: PublishedWriter, name: string, parts: readonly (string | number)[]): string {
  const sizes = parts.map((part) => (typeof part === 'string' ? part : w.integers([part])))
  const shape = w.node('Concat', sizes, undefined, { attributes: { axis: { int: 0 } } })
  return w.node('Reshape', [name, shape])
}

function transpose(w: PublishedWriter, name: string, ...perm: number[]): string {
  return w.node('Transpose', [name], undefined, { attributes: { perm: { ints: perm } } })
}

/** BLOOM: one projection with the parts of each head beside one another, batch and heads as one axis, keys transposed. */
export function bloomAttention(w: PublishedWriter): AttentionWriter {
  const { numHeads, headDim, hiddenSize } = w.settings
  inputs(w)
  const both = 'batch_size x num_heads'
  const sum = w.node('CumSum', ['attention_mask', w.scalar(1)])
  const places = w.node('Mul', [w.node('Sub', [sum, w.integers([1])]), 'attention_mask'])
  const wide = w.node('Cast', [w.node('Unsqueeze', [places, w.integers([1])])], undefined, {
    attributes: { to: { int: w.float } },
  })
  const slopes = Array.from({ length: numHeads }, (_, h) => 2 ** ((-8 * (h + 1)) / numHeads))
  const spread = w.node('Mul', [w.floats(slopes, [numHeads, 1]), wide])
  const heads = (count: string): string => w.node('Mul', [count, w.integers([numHeads])])
  const alibi = reshape(w, spread, [heads(axisOf(w, 'attention_mask', 0)), 1, axisOf(w, 'attention_mask', 1)])
  const hidden = w.node('Not', [booleanMask(w)])
  return (_, layer, x) => {
    const [batch, fresh] = [axisOf(w, x, 0), axisOf(w, x, 1)]
    const fused = w.linear(x, `h.${layer}.query_key_value`, hiddenSize, 3 * numHeads * headDim, true)
    const split = reshape(w, fused, [batch, fresh, numHeads, 3, headDim])
    const part = (index: number): string =>
      w.node('Gather', [split, w.scalar(index)], undefined, { attributes: { axis: { int: 3 } } })
    const flat = (name: string, ...perm: number[]): string => transpose(w, name, ...perm)
    const query = reshape(w, flat(part(0), 0, 2, 1, 3), [heads(batch), fresh, headDim])
    const key = reshape(w, flat(part(1), 0, 2, 3, 1), [heads(batch), headDim, fresh])
    const value = reshape(w, flat(part(2), 0, 2, 1, 3), [heads(batch), fresh, headDim])
    const keys = append(w, layer, 'key', key, [both, headDim, 'length'])
    const values = append(w, layer, 'value', value, [both, 'length', headDim])
    const product = w.node('Mul', [w.node('MatMul', [query, keys]), w.floats([1 / Math.sqrt(headDim)])])
    const scores = reshape(w, w.node('Add', [product, alibi]), [batch, numHeads, fresh, axisOf(w, keys, 2)])
    const masked = w.node('Where', [hidden, w.floats([least]), scores])
    const probabilities = w.node('Softmax', [masked], undefined, { attributes: { axis: { int: -1 } } })
    const rows = reshape(w, probabilities, [heads(batch), fresh, axisOf(w, keys, 2)])
    const result = reshape(w, w.node('MatMul', [rows, values]), [batch, numHeads, fresh, headDim])
    return reshape(w, transpose(w, result, 0, 2, 1, 3), [batch, fresh, numHeads * headDim])
  }
}

/** GPT-BigCode: all heads of a token are rows of one product with the single head of keys, cached beside its values. */
export function multiQueryAttention(w: PublishedWriter): AttentionWriter {
  const { numHeads, headDim, hiddenSize } = w.settings
  inputs(w)
  const mask = transpose(w, booleanMask(w), 0, 2, 1, 3)
  return (_, layer, x) => {
    const [batch, fresh] = [axisOf(w, x, 0), axisOf(w, x, 1)]
    const all = conv1d(w, x, `h.${layer}.c_attn`, hiddenSize, (numHeads + 2) * headDim)
    const parts = [`h.${layer}.q`, `h.${layer}.kv`]
    const last = { attributes: { axis: { int: 2 } } }
    w.node('Split', [all, w.integers([numHeads * headDim, 2 * headDim])], parts, last)
    const cached = append(w, layer, 'key_value', parts[1]!, ['batch_size', 'length', 2 * headDim])
    const [key, value] = [`h.${layer}.k`, `h.${layer}.v`]
    w.node('Split', [cached, w.integers([headDim, headDim])], [key, value], { attributes: { axis: { int: -1 } } })
    const query = reshape(w, parts[0]!, [batch, w.node('Mul', [fresh, w.integers([numHeads])]), headDim])
    const product = w.node('MatMul', [query, transpose(w, key, 0, 2, 1)])
    const scaled = w.node('Mul', [product, w.floats([1 / Math.sqrt(headDim)])])
    const total = axisOf(w, cached, 1)
    const scores = reshape(w, scaled, [batch, fresh, numHeads, total])
    const masked = w.node('Where', [mask, scores, w.floats([least])])
    const probabilities = w.node('Softmax', [masked], undefined, { attributes: { axis: { int: -1 } } })
    const rows = reshape(w, probabilities, [batch, w.node('Mul', [fresh, w.integers([numHeads])]), total])
    return reshape(w, w.node('MatMul', [rows, value]), [batch, fresh, numHeads * headDim])
  }
}

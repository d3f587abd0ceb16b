/** Decoders that remember more than keys and values: short convolutions between layers of attention (LFM2). */
import { groupQuery } from './fused.ts'
import type { AttentionWriter } from './scaffold.ts'
import { stepLengths } from './steps.ts'
import type { PublishedWriter } from './writer.ts'

export interface HybridOptions {
  /** Layers with attention; the others are convolutions. */
  readonly attention: readonly number[]
  /** Tokens are multiplied with their part of the attention mask, which begins behind the length of a past key. */
  readonly masks?: boolean
  /** Several tokens at once begin from nothing, as some exports have it. */
  readonly startsAnew?: boolean
}

const kernel = 3

/** `[B, S, hidden]` to `[B, S, hidden]`, by a gated convolution along the text or by attention. */
export function hybridAttention(w: PublishedWriter, options: HybridOptions): AttentionWriter {
  const attention = groupQuery(w, { isPacked: true })
  const { layers, hiddenSize } = w.settings
  for (let layer = 0; layer < layers; layer++) {
    if (options.attention.includes(layer)) continue
    w.input(`past_conv.${layer}`, w.float, ['batch_size', hiddenSize, kernel])
    w.output(`present_conv.${layer}`, w.float, ['batch_size', hiddenSize, kernel])
  }
  return (_, layer, x) =>
    options.attention.includes(layer) ? attention(w, layer, x) : convolution(w, layer, x, options)
}

function convolution(w: PublishedWriter, layer: number, x: string, options: HybridOptions): string {
  const { hiddenSize } = w.settings
  const name = `model.layers.${layer}.conv`
  const turned = { attributes: { perm: { ints: [0, 2, 1] } } }
  const given = options.masks ? w.node('Mul', [x, ownMask(w, options)]) : x
  const projected = w.node(
    'Transpose',
    [w.linear(given, `${name}.in_proj`, hiddenSize, 3 * hiddenSize)],
    undefined,
    turned,
  )
  const parts = ['b', 'c', 'x'].map((part) => `${name}.${part}`)
  w.node('Split', [projected, w.integers([hiddenSize, hiddenSize, hiddenSize])], parts, {
    attributes: { axis: { int: 1 } },
  })
  const gated = w.node('Mul', [parts[0]!, parts[2]!])
  const { fresh } = stepLengths(w)
  const past = options.startsAnew ? w.node('Mul', [`past_conv.${layer}`, isOne(w, fresh)]) : `past_conv.${layer}`
  const all = w.node('Concat', [past, gated], undefined, { attributes: { axis: { int: -1 } } })
  const last = (value: string, count: string, output?: string): string =>
    w.node('Slice', [value, count, w.integers([Number.MAX_SAFE_INTEGER]), w.integers([-1])], output)
  last(all, w.integers([-kernel]), `present_conv.${layer}`)
  const weight = w.random(`${name}.weight`, [hiddenSize, 1, kernel], 0, 0.6)
  const convolved = w.node('Conv', [all, weight], undefined, {
    attributes: { group: { int: hiddenSize }, kernel_shape: { ints: [kernel] }, pads: { ints: [0, 0] } },
  })
  const own = last(convolved, w.node('Neg', [w.node('Unsqueeze', [fresh, w.integers([0])])]))
  return w.node('Transpose', [w.node('Mul', [parts[1]!, own])], undefined, turned)
}

/** 1 where a step has one token, else 0. */
function isOne(w: PublishedWriter, fresh: string): string {
  return w.node('Cast', [w.node('Equal', [fresh, w.scalar(1)])], undefined, { attributes: { to: { int: w.float } } })
}

/** The attention mask of the new tokens, `[B, S, 1]`. */
function ownMask(w: PublishedWriter, { attention }: HybridOptions): string {
  const shape = w.node('Shape', [`past_key_values.${attention[0]}.key`])
  const past = w.node('Gather', [shape, w.integers([2])], undefined, { attributes: { axis: { int: 0 } } })
  const own = w.node('Slice', ['attention_mask', past, w.integers([Number.MAX_SAFE_INTEGER]), w.integers([1])])
  const wide = w.node('Unsqueeze', [own, w.integers([2])])
  return w.node('Cast', [wide], undefined, { attributes: { to: { int: w.float } } })
}

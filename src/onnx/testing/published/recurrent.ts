/** Decoders with recurrent layers between those of attention: Mamba 2, as torch writes it out (Granite 4, Falcon H1). */
import { groupQuery } from './fused.ts'
import type { AttentionWriter } from './scaffold.ts'
import type { PublishedWriter } from './writer.ts'

/** N: numbers that each channel remembers. */
const stateSize = 8
const kernel = 4

/** `[B, S, hidden]` to `[B, S, H * D]`, by a recurrent layer or, in layers of `attention`, by attention. */
export function recurrentAttention(w: PublishedWriter, attentionLayers: readonly number[]): AttentionWriter {
  const attention = groupQuery(w, { isPacked: true })
  const { layers, numHeads, headDim } = w.settings
  for (let layer = 0; layer < layers; layer++) {
    if (attentionLayers.includes(layer)) continue
    const states = {
      conv: ['batch_size', numHeads * headDim + 2 * stateSize, kernel - 1],
      ssm: ['batch_size', numHeads, headDim, stateSize],
    }
    for (const [name, axes] of Object.entries(states)) {
      w.input(`past_${name}.${layer}`, w.float, axes)
      w.output(`present_${name}.${layer}`, w.float, axes)
    }
  }
  return (_, layer, x) => (attentionLayers.includes(layer) ? attention(w, layer, x) : mamba(w, layer, x))
}

const along = (axis: number) => ({ attributes: { axis: { int: axis } } })
const turned = (...perm: number[]) => ({ attributes: { perm: { ints: perm } } })

function mamba(w: PublishedWriter, layer: number, x: string): string {
  const { numHeads, headDim, hiddenSize } = w.settings
  const name = `model.layers.${layer}.mamba`
  const width = numHeads * headDim
  const mixed = width + 2 * stateSize
  const all = w.linear(x, `${name}.in_proj`, hiddenSize, mixed + numHeads, true)
  const [given, pace] = [`${name}.xBC`, `${name}.dt`]
  w.node('Split', [all, w.integers([mixed, numHeads])], [given, pace], along(2))
  const parts = [`${name}.x`, `${name}.B`, `${name}.C`]
  w.node('Split', [convolve(w, layer, given, mixed), w.integers([width, stateSize, stateSize])], parts, along(2))
  const step = w.node('Softplus', [pace])
  const rate = w.node('Neg', [w.node('Exp', [w.random(`${name}.A_log`, [numHeads], 0, 0.5)])])
  // [B, H, S]: the logarithm of what is left of a state since the step began.
  const decay = w.node(
    'Transpose',
    [w.node('CumSum', [w.node('Mul', [step, rate]), w.scalar(1)])],
    undefined,
    turned(0, 2, 1),
  )
  const split = w.node('Reshape', [parts[0]!, w.integers([0, 0, numHeads, headDim])])
  const fed = w.node('Mul', [split, w.node('Unsqueeze', [step, w.integers([3])])])
  const rows = scan(w, layer, {
    decay,
    fed: w.node('Transpose', [fed], undefined, turned(0, 2, 1, 3)),
    B: parts[1]!,
    C: parts[2]!,
  })
  const skipped = w.node('Mul', [split, w.random(`${name}.D`, [numHeads, 1], 1, 0.2)])
  const sum = w.node('Add', [w.node('Transpose', [rows], undefined, turned(0, 2, 1, 3)), skipped])
  return w.node('Reshape', [sum, w.integers([0, 0, width])])
}

/** A short convolution along the text, over what the steps before left and the new tokens. */
function convolve(w: PublishedWriter, layer: number, given: string, channels: number): string {
  const name = `model.layers.${layer}.mamba.conv1d`
  const fresh = w.node('Transpose', [given], undefined, turned(0, 2, 1))
  const all = w.node('Concat', [`past_conv.${layer}`, fresh], undefined, along(2))
  const end = w.integers([Number.MAX_SAFE_INTEGER])
  w.node('Slice', [all, w.integers([1 - kernel]), end, w.integers([2])], `present_conv.${layer}`)
  const weight = w.random(`${name}.weight`, [channels, 1, kernel], 0, 0.5)
  const rows = w.node('Conv', [all, weight, w.random(`${name}.bias`, [channels], 0, 0.2)], undefined, {
    attributes: { group: { int: channels }, kernel_shape: { ints: [kernel] }, pads: { ints: [0, 0] } },
  })
  const active = w.node('Mul', [rows, w.node('Sigmoid', [rows])])
  return w.node('Transpose', [active], undefined, turned(0, 2, 1))
}

interface ScanValues {
  /** `[B, H, S]` */
  readonly decay: string
  /** `[B, H, S, D]` */
  readonly fed: string
  /** `[B, S, N]` */
  readonly B: string
  readonly C: string
}

/** All tokens of a step at once, `[B, H, S, D]`: each sees the state before the step and the tokens up to itself. */
function scan(w: PublishedWriter, layer: number, { decay, fed, B, C }: ScanValues): string {
  const wide = (value: string, axis: number): string => w.node('Unsqueeze', [value, w.integers([axis])])
  const apart = w.node('Sub', [wide(decay, 3), wide(decay, 2)])
  const left = w.node('Trilu', [w.node('Exp', [apart])], undefined, { attributes: { upper: { int: 0 } } })
  const alike = w.node('MatMul', [C, w.node('Transpose', [B], undefined, turned(0, 2, 1))])
  const within = w.node('MatMul', [w.node('Mul', [left, wide(alike, 1)]), fed])
  const past = `past_ssm.${layer}`
  const read = w.node('MatMul', [wide(C, 1), w.node('Transpose', [past], undefined, turned(0, 1, 3, 2))])
  const before = w.node('Mul', [read, wide(w.node('Exp', [decay]), 3)])
  const last = w.node('Slice', [decay, w.integers([-1]), w.integers([Number.MAX_SAFE_INTEGER]), w.integers([2])])
  const kept = w.node('Mul', [past, wide(w.node('Exp', [last]), 3)])
  const weighted = w.node('Mul', [fed, wide(w.node('Exp', [w.node('Sub', [last, decay])]), 3)])
  const added = w.node('MatMul', [w.node('Transpose', [weighted], undefined, turned(0, 1, 3, 2)), wide(B, 1)])
  w.node('Add', [kept, added], `present_ssm.${layer}`)
  return w.node('Add', [within, before])
}

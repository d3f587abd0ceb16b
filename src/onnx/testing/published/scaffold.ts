/** What surrounds attention in published decoders: embedding, norms, residuals, feed-forward, head. */
import { dataTypes } from '../../schema.ts'
import type { PublishedWriter } from './writer.ts'

/** Attention of one layer: from `[B, S, hidden]` to `[B, S, H * D]`. */
export type AttentionWriter = (w: PublishedWriter, layer: number, x: string) => string

/** Norms and residuals as onnxruntime-genai writes them: the residual sum is an output of the norm. */
export function fusedDecoder(w: PublishedWriter, attention: AttentionWriter, extra: { isTied?: boolean } = {}): void {
  const { layers, hiddenSize, vocabSize, numHeads, headDim } = w.settings
  const tied = extra.isTied ? w.packedTable('model.embed_tokens.weight', vocabSize, hiddenSize) : undefined
  const table = tied ? '' : w.random('model.embed_tokens.weight', [vocabSize, hiddenSize], 0, 1)
  const looked = '/model/embed_tokens/Gather_output_0'
  let hidden = tied ? gatherPacked(w, tied, looked) : w.node('Gather', [table, 'input_ids'], looked)
  const norm = (name: string, x: string, skip?: string): string => {
    const weight = w.random(`${name}.weight`, [hiddenSize], 1, 0.1)
    const attributes = { epsilon: { float: 1e-5 } }
    if (skip === undefined) return w.node('SimplifiedLayerNormalization', [x, weight], undefined, { attributes })
    hidden = `${name}/sum`
    const outputs = [`${name}/out`, '', '', hidden]
    const domain = 'com.microsoft'
    return w.node('SkipSimplifiedLayerNormalization', [x, skip, weight], outputs, { domain, attributes })
  }
  let normed = norm('model.layers.0.input_layernorm', hidden)
  for (let layer = 0; layer < layers; layer++) {
    const prefix = `model.layers.${layer}`
    const attended = w.linear(attention(w, layer, normed), `${prefix}.attn.o_proj`, numHeads * headDim, hiddenSize)
    normed = norm(`${prefix}.post_attention_layernorm`, hidden, attended)
    const fed = gatedFeedForward(w, `${prefix}.mlp`, normed)
    const next = layer + 1 < layers ? `model.layers.${layer + 1}.input_layernorm` : 'model.final_norm'
    normed = norm(next, hidden, fed)
  }
  if (!tied) addLogits(w, normed)
  else addPackedLogits(w, normed, tied)
}

function addPackedLogits(w: PublishedWriter, normed: string, tied: readonly [string, string]): void {
  const { hiddenSize, vocabSize } = w.settings
  const sizes = { K: { int: hiddenSize }, N: { int: vocabSize }, bits: { int: 4 }, block_size: { int: 32 } }
  const settings = { domain: 'com.microsoft', attributes: sizes }
  const logits = w.node('MatMulNBits', [normed, ...tied], '/lm_head/MatMulNBits_output_0', settings)
  w.node('Cast', [logits], 'logits', { attributes: { to: { int: dataTypes.float } } })
  w.output('logits', dataTypes.float, ['batch_size', 'sequence_length', vocabSize])
}

/** Rows of a table that is packed for the head, as the model builder ties them. */
function gatherPacked(w: PublishedWriter, [codes, scales]: readonly [string, string], output: string): string {
  const { hiddenSize, vocabSize } = w.settings
  const flat = w.node('Reshape', [codes, w.integers([vocabSize, hiddenSize / 2])])
  const attributes = { bits: { int: 4 }, block_size: { int: 32 }, gather_axis: { int: 0 }, quantize_axis: { int: 1 } }
  return w.node('GatherBlockQuantized', [flat, 'input_ids', scales], output, { domain: 'com.microsoft', attributes })
}

/** Norms and residuals as torch writes them, in f32 inside. */
export function plainDecoder(w: PublishedWriter, attention: AttentionWriter, extra: { softcap?: number } = {}): void {
  const { layers, hiddenSize, vocabSize, numHeads, headDim } = w.settings
  const table = w.random('model.embed_tokens.weight', [vocabSize, hiddenSize], 0, 1)
  let hidden = w.node('Gather', [table, 'input_ids'], '/model/embed_tokens/Gather_output_0')
  for (let layer = 0; layer < layers; layer++) {
    const prefix = `model.layers.${layer}`
    const normed = writtenNorm(w, `${prefix}.input_layernorm`, hidden)
    const attended = w.linear(attention(w, layer, normed), `${prefix}.self_attn.o_proj`, numHeads * headDim, hiddenSize)
    hidden = w.node('Add', [hidden, attended])
    hidden = w.node('Add', [hidden, gatedFeedForward(w, `${prefix}.mlp`, writtenNorm(w, `${prefix}.norm`, hidden))])
  }
  addLogits(w, writtenNorm(w, 'model.norm', hidden), extra.softcap)
}

/** GPT-2: learned positions, LayerNormalization, Gemm on flattened rows, gelu by tanh. */
export function gptDecoder(w: PublishedWriter, attention: AttentionWriter, positions: string | undefined): void {
  const { layers, hiddenSize, vocabSize, intermediateSize, maxPositions, numHeads, headDim } = w.settings
  const table = w.random('transformer.wte.weight', [vocabSize, hiddenSize], 0, 1)
  let hidden = w.node('Gather', [table, 'input_ids'])
  if (positions !== undefined) {
    const learned = w.random('transformer.wpe.weight', [maxPositions, hiddenSize], 0, 0.5)
    hidden = w.node('Add', [hidden, w.node('Gather', [learned, positions])])
  }
  for (let layer = 0; layer < layers; layer++) {
    const prefix = `transformer.h.${layer}`
    const attended = attention(w, layer, layerNorm(w, `${prefix}.ln_1`, hidden))
    hidden = w.node('Add', [conv1d(w, attended, `${prefix}.attn.c_proj`, numHeads * headDim, hiddenSize), hidden])
    const wide = conv1d(w, layerNorm(w, `${prefix}.ln_2`, hidden), `${prefix}.mlp.c_fc`, hiddenSize, intermediateSize)
    hidden = w.node('Add', [hidden, conv1d(w, gelu(w, wide), `${prefix}.mlp.c_proj`, intermediateSize, hiddenSize)])
  }
  addLogits(w, layerNorm(w, 'transformer.ln_f', hidden))
}

/** GPT-2 as ONNX Runtime's own conversion leaves it: embeddings, residuals and norms in one node each. */
export function fusedGptDecoder(w: PublishedWriter, attention: AttentionWriter): void {
  const { layers, hiddenSize, vocabSize, intermediateSize, maxPositions, numHeads, headDim } = w.settings
  const domain = 'com.microsoft'
  const settings = { domain, attributes: { epsilon: { float: 1e-5 } } }
  const narrow = (name: string): string =>
    w.node('Cast', [name], undefined, { attributes: { to: { int: dataTypes.int32 } } })
  const scale = (name: string): [string, string] => [
    w.random(`${name}.weight`, [hiddenSize], 1, 0.1),
    w.random(`${name}.bias`, [hiddenSize], 0, 0.1),
  ]
  const words = w.random('transformer.wte.weight', [vocabSize, hiddenSize], 0, 1)
  const places = w.random('transformer.wpe.weight', [maxPositions, hiddenSize], 0, 0.5)
  const tokens = narrow('input_ids')
  let [normed, hidden] = ['embed/out', 'embed/sum']
  const inputs = [tokens, '', words, places, '', ...scale('transformer.h.0.ln_1'), '', narrow('position_ids')]
  w.node('EmbedLayerNormalization', inputs, [normed, 'embed/mask', hidden], settings)
  const skip = (name: string, x: string): void => {
    const outputs = [`${name}/out`, '', '', `${name}/sum`]
    const bias = w.random(`${name}.skip.bias`, [hiddenSize], 0, 0.2)
    w.node('SkipLayerNormalization', [hidden, x, ...scale(name), bias], outputs, settings)
    ;[normed, hidden] = [outputs[0]!, outputs[3]!]
  }
  for (let layer = 0; layer < layers; layer++) {
    const prefix = `transformer.h.${layer}`
    skip(`${prefix}.ln_2`, w.linear(attention(w, layer, normed), `${prefix}.attn`, numHeads * headDim, hiddenSize))
    const wide = w.linear(normed, `${prefix}.mlp.c_fc`, hiddenSize, intermediateSize)
    const bias = w.random(`${prefix}.mlp.c_fc.bias`, [intermediateSize], 0, 0.2)
    const active = w.node('FastGelu', [wide, bias], undefined, { domain })
    const next = layer + 1 < layers ? `transformer.h.${layer + 1}.ln_1` : 'transformer.ln_f'
    skip(next, w.linear(active, `${prefix}.mlp.c_proj`, intermediateSize, hiddenSize))
  }
  addLogits(w, normed)
}

function addLogits(w: PublishedWriter, normed: string, softcap?: number): void {
  const { hiddenSize, vocabSize } = w.settings
  let logits = w.linear(normed, 'lm_head', hiddenSize, vocabSize)
  if (softcap !== undefined) {
    const tanh = w.node('Tanh', [w.node('Div', [logits, w.floats([softcap])])])
    logits = w.node('Mul', [tanh, w.floats([softcap])])
  }
  // fp16 files keep f32 at their ends, as the converter of transformers.js writes them.
  w.node('Cast', [logits], 'logits', { attributes: { to: { int: dataTypes.float } } })
  w.output('logits', dataTypes.float, ['batch_size', 'sequence_length', vocabSize])
}

function gatedFeedForward(w: PublishedWriter, name: string, x: string): string {
  const { hiddenSize, intermediateSize } = w.settings
  const gate = w.linear(x, `${name}.gate_proj`, hiddenSize, intermediateSize)
  const up = w.linear(x, `${name}.up_proj`, hiddenSize, intermediateSize)
  const silu = w.node('Mul', [gate, w.node('Sigmoid', [gate])])
  return w.linear(w.node('Mul', [silu, up]), `${name}.down_proj`, intermediateSize, hiddenSize)
}

/** RMS norm as single nodes. */
function writtenNorm(w: PublishedWriter, name: string, x: string): string {
  const { hiddenSize } = w.settings
  const f32 = { attributes: { to: { int: dataTypes.float } } }
  const wide = w.node('Cast', [x], undefined, f32)
  const square = w.node('Pow', [wide, w.floats([2], [], dataTypes.float)])
  const mean = w.node('ReduceMean', [square], undefined, { attributes: { axes: { ints: [-1] } } })
  const root = w.node('Sqrt', [w.node('Add', [mean, w.floats([1e-5], [], dataTypes.float)])])
  const scaled = w.node('Mul', [wide, w.node('Div', [w.floats([1], [], dataTypes.float), root])])
  const narrow = w.node('Cast', [scaled], undefined, { attributes: { to: { int: w.float } } })
  return w.node('Mul', [w.random(`${name}.weight`, [hiddenSize], 1, 0.1), narrow])
}

function layerNorm(w: PublishedWriter, name: string, x: string): string {
  const { hiddenSize } = w.settings
  const weights = [w.random(`${name}.weight`, [hiddenSize], 1, 0.1), w.random(`${name}.bias`, [hiddenSize], 0, 0.1)]
  return w.node('LayerNormalization', [x, ...weights], undefined, {
    attributes: { axis: { int: -1 }, epsilon: { float: 1e-5 } },
  })
}

/** Conv1D of GPT-2: rows of all sequences flattened, Gemm, and back, with shapes computed in the graph. */
export function conv1d(w: PublishedWriter, x: string, name: string, inFeatures: number, outFeatures: number): string {
  const shape = w.node('Shape', [x])
  const axis = (index: number): string => {
    const size = w.node('Gather', [shape, w.scalar(index)], undefined, { attributes: { axis: { int: 0 } } })
    return w.node('Unsqueeze', [size, w.integers([0])])
  }
  const flat = w.node('Reshape', [x, w.integers([-1, inFeatures])])
  const weight = w.random(`${name}.weight`, [inFeatures, outFeatures], 0, 1 / Math.sqrt(inFeatures))
  const product = w.node('Gemm', [flat, weight, w.random(`${name}.bias`, [outFeatures], 0, 0.2)])
  const back = w.node('Concat', [axis(0), axis(1), w.integers([outFeatures])], undefined, {
    attributes: { axis: { int: 0 } },
  })
  return w.node('Reshape', [product, back])
}

function gelu(w: PublishedWriter, x: string): string {
  const cubed = w.node('Pow', [x, w.floats([3])])
  const inner = w.node('Add', [x, w.node('Mul', [cubed, w.floats([0.044715])])])
  const tanh = w.node('Tanh', [w.node('Mul', [inner, w.floats([Math.sqrt(2 / Math.PI)])])])
  const half = w.node('Mul', [x, w.floats([0.5])])
  return w.node('Mul', [half, w.node('Add', [tanh, w.floats([1])])])
}

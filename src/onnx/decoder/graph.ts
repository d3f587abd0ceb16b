/**
 * The graph of a decoder of the Llama family, built from a description. What differs between model types is data
 * (config.ts reads it from their files); nothing here asks which model it is.
 */

import type { GraphEnds } from '../architectures/contract.ts'
import { addAttention } from '../attention-node.ts'
import { feedForward, linear, rmsNorm, softcap, splitHeads } from '../blocks.ts'
import type { GraphBuilder } from '../builder.ts'
import { dataTypes } from '../schema.ts'
import type { DecoderSpec } from './config.ts'
import { embedTokens, projectLogits } from './vocabulary.ts'

export async function buildDecoder(spec: DecoderSpec, graph: GraphBuilder): Promise<GraphEnds> {
  const { hiddenSize, vocabSize, embeddingScale, logitSoftcap } = spec
  const shape = ['T', hiddenSize] as const
  if (spec.hasFusedProjections) splitProjections(spec, graph)
  const tokens = graph.input('tokens', dataTypes.int32, ['T'])
  let hidden = embedTokens(graph, tokens, spec)
  if (embeddingScale !== undefined) hidden = graph.node('Mul', [hidden, graph.number(embeddingScale)], { shape })
  for (const layer of spec.layers.keys()) hidden = addLayer(spec, graph, layer, hidden)
  const normed = addNorm(spec, graph, hidden, 'model.norm')
  const logits = await projectLogits(graph, normed, spec)
  const isCapped = logitSoftcap !== undefined
  return { tokens, hidden, logits: isCapped ? softcap(graph, logits, logitSoftcap, ['T', vocabSize]) : logits }
}

function addLayer(spec: DecoderSpec, graph: GraphBuilder, layer: number, input: string): string {
  const { norms, hiddenSize } = spec
  const prefix = `model.layers.${layer}`
  const shape = ['T', hiddenSize] as const
  const norm = (x: string, name: string | undefined): string =>
    name === undefined ? x : addNorm(spec, graph, x, `${prefix}.${name}`)
  const attended = addSelfAttention(spec, graph, layer, norm(input, norms.beforeAttention))
  const middle = graph.node('Add', [input, norm(attended, norms.afterAttention)], { shape })
  const { intermediateSize, mlpBias: bias, activation } = spec
  const sizes = { hiddenSize, intermediateSize, bias, activation }
  const fed = feedForward(graph, norm(middle, norms.beforeFeedForward), `${prefix}.mlp`, sizes)
  return graph.node('Add', [middle, norm(fed, norms.afterFeedForward)], { shape })
}

function addNorm(spec: DecoderSpec, graph: GraphBuilder, x: string, name: string): string {
  const { hiddenSize, epsilon, normOffset: offset } = spec
  return rmsNorm(graph, x, `${name}.weight`, { shape: ['T', hiddenSize], epsilon, offset })
}

function addSelfAttention(spec: DecoderSpec, graph: GraphBuilder, layer: number, x: string): string {
  const { hiddenSize, numHeads, numKvHeads, headDim, attentionBias, attentionScale, attentionSoftcap } = spec
  const prefix = `model.layers.${layer}.self_attn`
  const project = (name: string, heads: number): string => {
    const size = { inFeatures: hiddenSize, outFeatures: heads * headDim, bias: attentionBias.input }
    return linear(graph, x, `${prefix}.${name}_proj`, size)
  }
  const normed = (name: string, heads: number): string => {
    const split = splitHeads(graph, project(name, heads), heads, headDim)
    if (!spec.hasQueryKeyNorm) return split
    const { epsilon, normOffset: offset } = spec
    return rmsNorm(graph, split, `${prefix}.${name}_norm.weight`, { shape: ['T', heads, headDim], epsilon, offset })
  }
  const output = addAttention(graph, {
    query: normed('q', numHeads),
    key: normed('k', numKvHeads),
    value: project('v', numKvHeads),
    layer,
    numHeads,
    numKvHeads,
    headDim,
    scale: attentionScale,
    softcap: attentionSoftcap,
    ...spec.layers[layer],
  })
  const size = { inFeatures: numHeads * headDim, outFeatures: hiddenSize, bias: attentionBias.output }
  return linear(graph, output, `${prefix}.o_proj`, size)
}

/** qkv_proj and gate_up_proj hold their parts as consecutive rows. */
function splitProjections(spec: DecoderSpec, graph: GraphBuilder): void {
  const { hiddenSize, intermediateSize, numHeads, numKvHeads, headDim } = spec
  const heads = { q: numHeads * headDim, k: numKvHeads * headDim, v: numKvHeads * headDim }
  const gates = { gate: intermediateSize, up: intermediateSize }
  for (const layer of spec.layers.keys()) {
    const prefix = `model.layers.${layer}`
    for (const [fused, parts] of [
      ['self_attn.qkv', heads],
      ['mlp.gate_up', gates],
    ] as const) {
      const owner = `${prefix}.${fused.split('.')[0]}`
      const named = Object.entries(parts).map(([part, rows]) => [`${owner}.${part}_proj.weight`, rows] as const)
      graph.splitRows(`${prefix}.${fused}_proj.weight`, Object.fromEntries(named), hiddenSize)
    }
  }
}

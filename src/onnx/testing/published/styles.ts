/** Small decoders in every published style, by name. */
import { make } from '../../codec.ts'
import { valuesRead } from '../../graph-walk.ts'
import { attributeTypes, dataTypes, type OnnxModel } from '../../schema.ts'
import { contribAttention, groupQuery, multiHead, standard } from './fused.ts'
import { bloomAttention, multiQueryAttention } from './fused-caches.ts'
import { fusedDecoder, fusedGptDecoder, gptDecoder, plainDecoder } from './scaffold.ts'
import { stepInputs } from './steps.ts'
import { type DecoderSettings, PublishedWriter, smallDecoder } from './writer.ts'
import { alibiAttention, gptAttention, llamaAttention, optAttention } from './written.ts'
import { maskPositions, rangePositions } from './written-positions.ts'

type Style = (w: PublishedWriter) => void

const sameHeads = (w: PublishedWriter) => ({ ...w.settings, numKvHeads: w.settings.numHeads })

export const styles = {
  'genai, packed projection': (w) => fusedDecoder(w, groupQuery(w, { isPacked: true })),
  'genai, three projections': (w) => fusedDecoder(w, groupQuery(w, {})),
  'genai, interleaved, partly rotated': (w) => fusedDecoder(w, groupQuery(w, { isInterleaved: true, rotaryDim: 16 })),
  'genai, norms and rotation before the node': (w) =>
    fusedDecoder(w, groupQuery(w, { rotation: 'nodes', hasNorms: true })),
  'genai, windows in odd layers, sinks, soft cap, scale': (w) =>
    fusedDecoder(
      w,
      groupQuery(w, { oddWindow: 9, hasSinks: true, attributes: { softcap: { float: 3 }, scale: { float: 0.4 } } }),
    ),
  'genai, LongRoPE': (w) => fusedDecoder(w, groupQuery(w, { long: { length: 50, factor: 3 } })),
  'genai, LongRoPE in nodes': (w) =>
    fusedDecoder(w, groupQuery(w, { rotation: 'nodes', long: { length: 50, factor: 3 } })),
  'genai, tied embeddings in 4 bits': (w) => fusedDecoder(w, groupQuery(w, {}), { isTied: true }),
  'genai, smooth softmax': (w) => fusedDecoder(w, groupQuery(w, { attributes: { smooth_softmax: { int: 1 } } })),
  'genai, attention bias that is causal': (w) => fusedDecoder(w, groupQuery(w, { bias: 'causal' })),
  'MultiHeadAttention with a mask': (w) => fusedDecoder(w, multiHead(w, {})),
  'MultiHeadAttention, unidirectional, with a bias': (w) =>
    fusedDecoder(w, multiHead(w, { rotation: 'none', isUnidirectional: true, hasNorms: true })),
  'MultiHeadAttention, ALiBi': (w) => fusedDecoder(w, multiHead(w, { rotation: 'none', bias: 'alibi' })),
  'GPT-2, fused with its embeddings, operator set 11': (w) => fusedGptDecoder(w, contribAttention(w)),
  'GPT-2, fused': (w) => gptDecoder(w, contribAttention(w), 'position_ids'),
  'GPT-2, written out': (w) => {
    stepInputs(w, true, w.settings.numHeads)
    gptDecoder(w, gptAttention(w), 'position_ids')
  },
  'GPT-2, positions of its own': (w) => {
    stepInputs(w, false, w.settings.numHeads)
    gptDecoder(w, gptAttention(w), rangePositions(w))
  },
  'ai.onnx, flat rows': (w) => fusedDecoder(w, standard(w, { isHeadsFirst: false })),
  'ai.onnx, heads first, boolean mask': (w) => fusedDecoder(w, standard(w, { isHeadsFirst: true, softcap: 4 })),
  'Llama, written out': (w) => plainDecoder(w, llamaAttention(w, { kind: 'eager' })),
  'Llama, written out, tables cut to length': (w) =>
    plainDecoder(w, llamaAttention(w, { kind: 'eager', rotary: 'sliced' })),
  OPT: (w) => gptDecoder(w, optAttention(w), maskPositions(w)),
  'Llama, written out, sdpa': (w) => plainDecoder(w, llamaAttention(w, { kind: 'sdpa' })),
  'Gemma 2, written out': (w) =>
    plainDecoder(w, llamaAttention(w, { kind: 'eager', softcap: 5, evenWindow: 11, scale: 0.3 }), { softcap: 7 }),
  'ALiBi, written out': (w) => plainDecoder(w, alibiAttention(w)),
  BLOOM: (w) => gptDecoder(w, bloomAttention(w), undefined),
  'GPT-BigCode': (w) => gptDecoder(w, multiQueryAttention(w), maskPositions(w, 0)),
  'shared keys and values': (w) => plainDecoder(w, llamaAttention(w, { kind: 'eager', sharedFrom: 1 })),
  'merged decoder': (w) => plainDecoder(w, llamaAttention(w, { kind: 'eager' })),
} as const satisfies Record<string, Style>

export type StyleName = keyof typeof styles

export const styleNames = Object.keys(styles) as StyleName[]

/** Styles whose attention has as many KV heads as heads. */
const ungrouped = /MultiHead|GPT-2|ALiBi|OPT|BLOOM/

/** A whole graph of a style. */
export function createDecoder(name: StyleName, settings: Partial<DecoderSettings> = {}): OnnxModel {
  const w = new PublishedWriter({ ...smallDecoder, ...(name.includes('partly') && { headDim: 32 }), ...settings })
  const own = ungrouped.test(name) ? new PublishedWriter(sameHeads(w)) : w
  styles[name](own)
  const model = finish(own, name.startsWith('ai.onnx') ? 23 : name.endsWith('set 11') ? 11 : 17)
  return name === 'merged decoder' ? merged(model) : model
}

/** A graph with attention of one's own choice. */
export function createCustom(write: Style, settings: Partial<DecoderSettings> = {}, operatorSet = 17): OnnxModel {
  const w = new PublishedWriter({ ...smallDecoder, ...settings })
  write(w)
  return finish(w, operatorSet)
}

function finish(w: PublishedWriter, operatorSet: number): OnnxModel {
  const read = new Set(w.nodes.flatMap(valuesRead))
  const written = new Set(w.nodes.flatMap(({ output }) => output))
  const graph = make('Graph', {
    name: 'main_graph',
    node: w.nodes,
    initializer: w.tensors,
    input: w.inputs.filter(({ name = '' }) => read.has(name)),
    output: w.outputs.filter(({ name = '' }) => written.has(name)),
  })
  const opsetImport = [
    { domain: '', version: operatorSet },
    { domain: 'com.microsoft', version: 1 },
  ].map((set) => make('OperatorSet', set))
  return make('Model', { irVersion: 10, producerName: 'test', opsetImport, graph })
}

/** As `decoder_model_merged.onnx`: an If on `use_cache_branch`; here both branches are the same. */
function merged(model: OnnxModel): OnnxModel {
  const graph = model.graph!
  const branch = (name: string) => ({
    ...make('Graph', { name, node: graph.node.map((node) => ({ ...node, output: [...node.output] })) }),
    output: graph.output,
  })
  const choice = make('Node', {
    opType: 'If',
    name: 'optimum::if',
    input: ['use_cache_branch'],
    output: graph.output.map(({ name }) => name ?? ''),
    attribute: ['then_branch', 'else_branch'].map((name) =>
      make('Attribute', { name, type: attributeTypes.graph, g: branch(name) }),
    ),
  })
  const input = make('ValueInfo', {
    name: 'use_cache_branch',
    type: make('Type', {
      tensorType: make('TensorType', {
        elemType: dataTypes.bool,
        shape: make('Shape', { dim: [make('Dimension', { dimValue: 1 })] }),
      }),
    }),
  })
  return { ...model, graph: { ...graph, node: [choice], input: [...graph.input, input] } }
}

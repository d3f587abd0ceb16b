import { describe, expect, it } from 'vitest'
import { smallGraphs } from '../../runtime/small-graph.ts'
import { make } from '../codec.ts'
import { cutModel } from '../cut.ts'
import type { OnnxModel, OnnxNode } from '../schema.ts'
import { beforeHead, edit, withNodes } from '../testing/published/changed.ts'
import { hybridAttention } from '../testing/published/hybrid.ts'
import { plainDecoder } from '../testing/published/scaffold.ts'
import { createCustom, createDecoder, type StyleName, styleNames } from '../testing/published/styles.ts'
import { takeOver } from './index.ts'

const options = { openGraph: smallGraphs('/'), maxPositions: 1 << 13 }

/** The taken-over graph, cut, as a list of what each part holds. */
async function taken(model: OnnxModel) {
  const result = await takeOver(model, options)
  return { ...result, cut: cutModel(result.model, result.ends) }
}

const opTypes = (nodes: readonly OnnxNode[]): string[] => nodes.map(({ opType }) => opType ?? '')

describe('the takeover', () => {
  it.each(styleNames)('leaves nothing of attention, its masks and its lengths: %s', async (style) => {
    const { cut, ends, kinds } = await taken(createDecoder(style))
    expect(cut.attention).toHaveLength(2)
    expect(kinds).toHaveLength(2)
    const all = [...cut.segments, cut.head].flatMap(({ model }) => model.graph!.node)
    const dead = ['Softmax', 'GroupQueryAttention', 'MultiHeadAttention', 'Range', 'Less', 'LessOrEqual', 'ReduceSum']
    expect(opTypes(all).filter((name) => [...dead, 'Shape', 'ConstantOfShape', 'CumSum'].includes(name))).toEqual([])
    expect(cut.head.inputs).toEqual([ends.hidden])
    const inputs = [...cut.segments, cut.head].flatMap((part) => part.inputs)
    expect(inputs.filter((name) => /mask|past/.test(name))).toEqual([])
  })

  it('knows sizes, windows, soft caps, scales and sinks of each layer', async () => {
    const { cut } = await taken(createDecoder('genai, windows in odd layers, sinks, soft cap, scale'))
    const common = { numHeads: 4, numKvHeads: 2, headDim: 16, valueDim: 16, softcap: 3, rotary: 'cos_cache' }
    expect(cut.attention[0]).toMatchObject({ ...common, layer: 0, sinkLogits: '/model/layers.0/attn.sinks' })
    expect(cut.attention[0]!.window).toBeUndefined()
    expect(cut.attention[1]).toMatchObject({ ...common, layer: 1, window: 9 })
    expect(cut.attention[1]!.scale).toBeCloseTo(0.4, 6)
  })

  it('learns windows, soft caps and scales from what a graph computes', async () => {
    const { cut } = await taken(createDecoder('Gemma 2, written out'))
    expect(cut.attention.map(({ window }) => window)).toEqual([11, undefined])
    for (const { softcap, scale } of cut.attention) {
      expect(softcap).toBeCloseTo(5, 6)
      expect(scale).toBeCloseTo(0.3, 5)
    }
    const scales = async (style: StyleName) =>
      (await taken(createDecoder(style))).cut.attention.map(({ scale }) => scale)
    expect(await scales('Llama, written out')).toEqual([undefined, undefined])
    // Queries come multiplied with the root of the scale already.
    for (const scale of await scales('Llama, written out, sdpa')) expect(scale).toBeCloseTo(0.5, 6)
  })

  it('takes rotation from nodes in front, with the tables of the graph', async () => {
    const { cut, tables } = await taken(createDecoder('genai, norms and rotation before the node'))
    expect(cut.attention.map(({ rotary }) => rotary)).toEqual(['cos_cache', 'cos_cache'])
    const table = tables.get('cos_cache')!
    expect([table.rows, table.pairs, table.isInterleaved]).toEqual([256, 8, false])
    expect(table.cos[8]).toBeCloseTo(Math.cos(1), 6)
    const all = cut.segments.flatMap(({ model }) => model.graph!.node)
    expect(opTypes(all)).not.toContain('RotaryEmbedding')
  })

  it('shares keys and values where layers do', async () => {
    const { cut } = await taken(createDecoder('shared keys and values'))
    expect(cut.attention.map(({ key, sharesKeyValueWith }) => [key !== undefined, sharesKeyValueWith])).toEqual([
      [true, undefined],
      [false, 0],
    ])
  })

  it('recognizes ALiBi by its numbers', async () => {
    for (const style of ['ALiBi, written out', 'MultiHeadAttention, ALiBi'] as const) {
      const { cut } = await taken(createDecoder(style))
      expect(cut.attention.map(({ alibi }) => alibi)).toEqual([true, true])
    }
  })
})

describe('what brings tokens together', () => {
  it('is left to steps of one sequence, with the reason', async () => {
    const mean = beforeHead('Mul', (w) => {
      const cast = w.node('Cast', ['attention_mask'], undefined, { attributes: { to: { int: w.float } } })
      return [w.node('ReduceMean', [cast])]
    })
    const ends = async (model: OnnxModel) => (await taken(model)).ends.alone
    expect(await ends(mean)).toMatchObject({
      mask: 'attention_mask',
      states: [],
      reason: expect.stringContaining('it depends on the number of earlier tokens'),
    })
    const sum = beforeHead('CumSum', (w) => [w.scalar(1)])
    expect(await ends(sum)).toEqual({
      states: [],
      reason: 'CumSum "strange/node" can\'t be taken over: it brings tokens together',
    })
    expect(await ends(createDecoder('genai, packed projection'))).toBeUndefined()
  })

  it('is a state when an output continues it', async () => {
    const hybrid = createCustom((w) => plainDecoder(w, hybridAttention(w, { attention: [1] })))
    const { ends, cut, warnings } = await taken(hybrid)
    const state = { past: 'past_conv.0', present: 'present_conv.0', type: 1, dims: [1, 64, 3], grows: false }
    expect(ends.alone).toEqual({ states: [state] })
    expect(cut.segments[0]!.outputs).toContain('present_conv.0')
    expect(warnings).toEqual([])
  })
})

describe('an attention that is not taken over beside one that is', () => {
  it('keeps its state, with a warning', async () => {
    const model = edit('Llama, written out', (original) =>
      withNodes(original, (node) =>
        node.opType === 'Concat' && node.output[0] === 'present.0.key'
          ? { ...node, attribute: [make('Attribute', { name: 'axis', type: 2, i: 3 })] }
          : node,
      ),
    )
    const { warnings, ends, kinds } = await taken(model)
    expect(kinds).toHaveLength(1)
    expect(ends.alone!.states.map(({ past, grows }) => [past, grows])).toEqual([
      ['past_key_values.0.key', true],
      ['past_key_values.0.value', true],
    ])
    expect(warnings).toEqual([
      'ONNX Runtime keeps past_key_values.0.key, past_key_values.0.value, which no policy and no window bounds',
      'no attention of a known form reads it',
    ])
  })
})

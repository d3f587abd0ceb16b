import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { smallGraphs } from '../../runtime/small-graph.ts'
import { isKvasirError } from '../../tensor/error.ts'
import { decodeModel, encodeModel, make } from '../codec.ts'
import { cutModel } from '../cut.ts'
import type { OnnxModel } from '../schema.ts'
import { beforeHead, edit, fused, heads, withNodes } from '../testing/published/changed.ts'
import { multiHead } from '../testing/published/fused.ts'
import { fusedDecoder, plainDecoder } from '../testing/published/scaffold.ts'
import { createCustom, createDecoder } from '../testing/published/styles.ts'
import { llamaAttention } from '../testing/published/written.ts'
import { takeOver } from './index.ts'

const options = { openGraph: smallGraphs('/'), maxPositions: 1 << 13 }

/** Products with values as FusedMatMul, with attributes that change what comes out. */
function fusedProducts(attribute: Parameters<typeof make<'Attribute'>>[1]): OnnxModel {
  return edit('Llama, written out', (model) => {
    const probabilities = new Set(
      model.graph!.node.filter(({ opType }) => opType === 'Softmax').flatMap((n) => n.output),
    )
    return withNodes(model, (node) =>
      node.opType === 'MatMul' && probabilities.has(node.input[0]!)
        ? { ...node, opType: 'FusedMatMul', domain: 'com.microsoft', attribute: [make('Attribute', attribute)] }
        : node,
    )
  })
}

describe('what is refused, and why', () => {
  const cases: Record<string, [() => OnnxModel, string]> = {
    'a bias that is not a mask': [() => fused({ bias: 'strange' }), "can't be taken over: its mask adds to the logits"],
    'a bias of MultiHeadAttention': [
      () => createCustom((w) => fusedDecoder(w, multiHead(w, { bias: 'strange' })), heads),
      'what is not ALiBi',
    ],
    'a mask with holes': [
      () => createCustom((w) => fusedDecoder(w, multiHead(w, { bias: 'holes' })), heads),
      'MultiHeadAttention "/model/layers.0/attn/MultiHeadAttention/output_0/node" can\'t be taken over: expected a causal',
    ],
    'a mask in chunks': [
      () => createCustom((w) => fusedDecoder(w, multiHead(w, { bias: 'chunks' })), heads),
      'expected a causal mask within a window of 8',
    ],
    'something else between the products': [
      () => createCustom((w) => plainDecoder(w, llamaAttention(w, { kind: 'eager', isStrange: true }))),
      "can't be taken over",
    ],
    'a product with values that is scaled': [
      () => fusedProducts({ name: 'alpha', type: 1, f: 0.5 }),
      'its values 0.5 times those of "past_key_values.0"',
    ],
    'a product with values that are turned': [
      () => fusedProducts({ name: 'transB', type: 2, i: 1 }),
      'expected its inputs as they lie, got transB',
    ],
    'a quantized cache': [
      () => fused({ attributes: { k_quant_type: { string: 'PER_TENSOR' } } }),
      'its cache is quantized (k_quant_type PER_TENSOR)',
    ],
    'attention that sees the future': [() => fused({ attributes: { causal: { int: 0 } } }), 'it is not causal'],
    'attention without a mask': [
      () =>
        edit('MultiHeadAttention, unidirectional, with a bias', (model) =>
          withNodes(model, (node) => ({
            ...node,
            attribute: node.attribute.filter(({ name }) => name !== 'unidirectional'),
          })),
        ),
      'it is not causal',
    ],
    'heads that do not divide': [() => fused({ attributes: { kv_num_heads: { int: 3 } } }), 'kv_num_heads'],
    'a mask of padding that is something else': [
      () =>
        edit('GPT-2, fused', (model) =>
          withNodes(model, (node) =>
            node.opType === 'Attention'
              ? { ...node, input: node.input.map((name, i) => (i === 3 ? 'position_ids' : name)) }
              : node,
          ),
        ),
      'expected attention_mask as its mask, got "position_ids"',
    ],
    'other states': [
      () => beforeHead('Add', (w) => [w.input('past_conv.0', w.float, [1, 1, 64])]),
      'it reads "past_conv.0", and nothing but attention may',
    ],
    'an operator of which nothing is known': [() => beforeHead('Det'), 'the type of its input "strange" is not known'],
    'keys of an attention that was taken over': [
      () => beforeHead('Add', (w) => [w.node('ReduceMean', ['present.0.key'])]),
      'it reads "present.0.key", which belonged to an attention that was taken over',
    ],
    'a state of unknown size': [
      () =>
        beforeHead('Add', (w) => {
          w.output('present_conv.0', w.float, [1, 1, 'width'])
          return [w.node('Identity', [w.input('past_conv.0', w.float, [1, 1, 'width'])], 'present_conv.0')]
        }),
      'State "past_conv.0" can\'t be taken over: the size of its axis 2 is not known',
    ],
    'a model without logits': [
      () => edit('genai, packed projection', (model) => ({ ...model, graph: { ...model.graph!, output: [] } })),
      'expected an output "logits"',
    ],
    'a model without attention': [
      () =>
        createCustom((w) => {
          w.input('input_ids', 7, ['batch_size', 'sequence_length'])
          plainDecoder(w, (_, _layer, x) => x)
        }),
      'found no attention in it',
    ],
    'an operator set that is too old': [
      () => ({
        ...createDecoder('Llama, written out'),
        opsetImport: [make('OperatorSet', { domain: '', version: 11 })],
      }),
      'expected version 13 to 25 of operator set "", got "" 11',
    ],
    'operators of another kind': [
      () =>
        edit('genai, packed projection', (model) => ({
          ...withNodes(model, (node) => (node.opType === 'Gather' ? { ...node, domain: 'their.own' } : node)),
          opsetImport: [...model.opsetImport, make('OperatorSet', { domain: 'their.own', version: 1 })],
        })),
      'expected known operator sets, got "their.own" 1',
    ],
    functions: [
      () => ({ ...createDecoder('genai, packed projection'), functions: [new Uint8Array(2)] }),
      'expected no functions',
    ],
    'a cycle': [
      () =>
        edit('genai, packed projection', (model) => ({
          ...model,
          graph: { ...model.graph!, node: model.graph!.node.toReversed() },
        })),
      'before it is written',
    ],
  }

  it.each(Object.entries(cases))('%s', async (_, [create, message]) => {
    const error: unknown = await takeOver(create(), options).catch((caught: unknown) => caught)
    expect(isKvasirError(error), String(error)).toBe(true)
    expect((error as Error).message).toContain(message)
  })
})

describe('damaged graphs', () => {
  const styles = ['genai, packed projection', 'Llama, written out', 'GPT-2, fused'] as const
  const bytes = styles.map((style) => encodeModel(createDecoder(style, { hiddenSize: 32, intermediateSize: 32 })))
  // Masks are not run here: what a damaged mask computes is ONNX Runtime's to say.
  const openGraph = () => Promise.reject(new Error('not here'))

  it('are taken over or answered with a KvasirError, never with another error', { timeout: 120_000 }, async () => {
    const damage = fc.array(fc.tuple(fc.nat(), fc.integer({ min: 0, max: 255 })), { minLength: 1, maxLength: 12 })
    const property = fc.asyncProperty(fc.nat({ max: 2 }), damage, async (which, changes) => {
      const damaged = bytes[which]!.slice()
      // Structure lies at the beginning, weights behind it.
      for (const [at, value] of changes) damaged[at % Math.min(damaged.length, 20_000)] = value
      try {
        await cutAll(damaged)
      } catch (error) {
        if (!isKvasirError(error) && (error as Error).message !== 'not here') throw error
      }
    })
    await fc.assert(property, { numRuns: 400 })
  })

  async function cutAll(damaged: Uint8Array): Promise<void> {
    const { model, ends } = await takeOver(decodeModel(damaged), { ...options, openGraph })
    cutModel(model, ends)
  }
})

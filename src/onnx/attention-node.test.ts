import { describe, expect, it } from 'vitest'
import { type AttentionNode, attentionAttributes, attentionInputs, parseAttention } from './attention-node.ts'
import { toAttribute } from './builder.ts'
import { decodeMessage, encodeMessage, make } from './codec.ts'

/** Through bytes, as a graph on disk would be. */
function reread({ name, output, ...attention }: AttentionNode): AttentionNode {
  const attribute = Object.entries(attentionAttributes(attention)).map(([key, value]) => toAttribute(key, value))
  const input = attentionInputs(attention).map((value) => value ?? '')
  const node = make('Node', { name, domain: 'kvasir', opType: 'Attention', input, output: [output], attribute })
  return parseAttention(decodeMessage('Node', encodeMessage('Node', node)))
}

const plain: AttentionNode = {
  ...{ name: 'a', query: 'q', key: 'k', value: 'v', output: 'o' },
  ...{ layer: 3, numHeads: 4, numKvHeads: 2, headDim: 16 },
}

describe('an attention node', () => {
  it('says the value dim even where it is the head dim', () => {
    expect(reread(plain)).toEqual({ ...plain, valueDim: 16 })
  })

  it('keeps everything that attention can do', () => {
    const full: AttentionNode = {
      ...{ ...plain, importance: 'i', sinkLogits: 's', valueDim: 8, scale: 0.25, softcap: 50, window: 7 },
      ...{ alibi: true, rotary: 'local' },
    }
    expect(reread(full)).toEqual(full)
  })

  it('has no keys and values of its own where it shares them', () => {
    const { key: _key, value: _value, ...query } = plain
    expect(reread({ ...query, sharesKeyValueWith: 1 })).toEqual({ ...query, valueDim: 16, sharesKeyValueWith: 1 })
    expect(() => reread(query)).toThrow('expected query, key, value')
    expect(() => reread({ ...plain, sharesKeyValueWith: 1 })).toThrow('expected query, key, value')
  })

  it.each([{ window: 0 }, { scale: 0 }, { softcap: Number.NaN }, { numHeads: -1 }])('refuses %o', (wrong) => {
    expect(() => reread({ ...plain, ...wrong })).toThrow('expected')
  })
})

import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { isKvasirError } from '../tensor/error.ts'
import { isAttention } from './attention-node.ts'
import { valueInfo } from './builder.ts'
import { decodeModel, encodeModel, make } from './codec.ts'
import { cutModel } from './cut.ts'
import { attributeTypes, dataTypes, type OnnxModel, type OnnxNode } from './schema.ts'

/** `a, b -> c`; the op is Attention when the name begins with "att". */
function node(text: string): OnnxNode {
  const [name, from, to] = text.split(/[:>]/).map((part) => part.trim()) as [string, string, string]
  const list = (part: string): string[] => part.split(' ').filter((value) => value !== '')
  const attention = name.startsWith('att')
  const attribute = ['layer', 'num_heads', 'kv_num_heads', 'head_dim'].map((key, i) =>
    make('Attribute', { name: key, type: attributeTypes.int, i: Math.min(i, 1) }),
  )
  return make('Node', {
    name,
    opType: attention ? 'Attention' : 'Some',
    domain: attention ? 'kvasir' : '',
    input: list(from),
    output: list(to),
    attribute: attention ? attribute : [],
  })
}

function model(lines: readonly string[], initializers: readonly string[] = []): OnnxModel {
  const graph = make('Graph', {
    name: 'g',
    node: lines.map(node),
    input: [valueInfo('tokens', dataTypes.int32, ['T'])],
    output: [valueInfo('logits', dataTypes.float, ['T', 8])],
    initializer: initializers.map((name) => make('Tensor', { name, dims: [1], dataType: dataTypes.float })),
  })
  return make('Model', { irVersion: 10, graph, opsetImport: [make('OperatorSet', { domain: 'kvasir', version: 1 })] })
}

const ends = { hidden: 'h', logits: 'logits' }
const namesOf = ({ model: cut }: { model: OnnxModel }): (string | undefined)[] =>
  cut.graph!.node.map(({ name }) => name)

const twoLayers = [
  'cast: w16 > w',
  'embed: table tokens > x0',
  'qkv0: x0 w > q0 k0 v0',
  'unused: x0 > nobody',
  'att0: q0 k0 v0 > a0',
  'add0: x0 a0 w > x1',
  'qkv1: x1 > q1 k1 v1',
  'att1: q1 k1 v1 > a1',
  'add1: x1 a1 x0 > h',
  'head: h table w > logits',
]

describe('the cut', () => {
  const cut = cutModel(model(twoLayers, ['table', 'w16', 'spare']), ends)

  it('puts every needed node into its segment, and constants where they are used', () => {
    expect([...cut.segments, cut.head].map(namesOf)).toEqual([
      ['cast', 'embed', 'qkv0'],
      ['cast', 'add0', 'qkv1'],
      ['add1'],
      ['cast', 'head'],
    ])
    expect(cut.attention.map(({ name }) => name)).toEqual(['att0', 'att1'])
  })

  it('makes inputs and outputs of exactly what crosses, over any number of segments', () => {
    expect([...cut.segments, cut.head].map(({ inputs, outputs }) => [inputs, outputs])).toEqual([
      [['tokens'], ['x0', 'q0', 'k0', 'v0']],
      [
        ['x0', 'a0'],
        ['x1', 'q1', 'k1', 'v1'],
      ],
      [['x1', 'a1', 'x0'], ['h']],
      [['h'], ['logits']],
    ])
  })

  it('gives each segment the initializers that it reads and no others', () => {
    const initializers = [...cut.segments, cut.head].map(({ model: part }) =>
      part.graph!.initializer.map(({ name }) => name),
    )
    expect(initializers).toEqual([['w16', 'table'], ['w16'], [], ['w16', 'table']])
  })

  it('keeps declared types and leaves out the operator set of attention', () => {
    const [first] = cut.segments
    expect(first!.model.graph!.input[0]!.type!.tensorType!.elemType).toBe(dataTypes.int32)
    expect(first!.model.opsetImport).toEqual([])
  })

  it('counts what subgraphs take from outside', () => {
    const uncut = model(twoLayers, ['table', 'w16'])
    const body = make('Graph', {
      name: 'then',
      node: [node('inner: q0 k0 local > out')],
      input: [make('ValueInfo', { name: 'local' })],
    })
    const add1 = uncut.graph!.node.find(({ name }) => name === 'add1')!
    add1.attribute.push(make('Attribute', { name: 'then_branch', type: attributeTypes.graph, g: body }))
    expect(cutModel(uncut, ends).segments[2]!.inputs).toEqual(['x1', 'a1', 'x0', 'q0', 'k0'])
  })

  it('needs no attention at all', () => {
    const plain = cutModel(model(['embed: tokens > h', 'head: h > logits']), ends)
    expect([plain.segments.length, plain.attention.length]).toEqual([1, 0])
  })

  const refused: Record<string, [string[], string]> = {
    'nodes out of order': [['b: y > h', 'a: tokens > y', 'head: h > logits'], 'reading "y" before it is written'],
    'a cycle': [['a: y > x', 'b: x > y', 'embed: tokens > h', 'head: h > logits'], 'before it is written'],
    'a value written twice': [['a: tokens > h', 'b: tokens > h', 'head: h > logits'], '"h" once'],
    'no node that computes the output': [['a: tokens > h'], 'expected the graph to compute "logits"'],
    'two attention nodes side by side': [
      ['q: tokens > q', 'att0: q q q > a', 'att1: q q q > b', 'add: a b > h', 'head: h > logits'],
      'got "att1" beside another',
    ],
    'a head that needs more than the residual stream': [
      ['embed: tokens > x', 'last: x > h', 'head: h x > logits'],
      'got one that needs "h", "x"',
    ],
    'an attention node without values': [
      ['q: tokens > q', 'att0: q q > a', 'add: a > h', 'head: h > logits'],
      'expected query, key, value and an output at attention node "att0"',
    ],
  }
  for (const [name, [lines, message]] of Object.entries(refused)) {
    it(`refuses ${name}`, () => {
      expect(() => cutModel(model(lines), ends)).toThrow(message)
    })
  }

  it('computes what the uncut graph computes, for random graphs', () => {
    fc.assert(
      fc.property(randomLines(), (lines) => {
        const uncut = model(lines, ['w'])
        const { segments, attention, head } = cutModel(uncut, ends)
        const values = new Map([['tokens', 1]])
        for (const [s, segment] of [...segments, head].entries()) {
          const local = new Map(segment.inputs.map((name) => [name, values.get(name)!]))
          evaluate(segment.model.graph!.node, local.set('w', 2))
          for (const name of segment.outputs) values.set(name, local.get(name)!)
          const next = attention[s]
          if (next)
            evaluate(
              uncut.graph!.node.filter(({ name }) => name === next.name),
              values,
            )
        }
        const whole = new Map([
          ['tokens', 1],
          ['w', 2],
        ])
        evaluate(uncut.graph!.node, whole)
        expect(values.get('logits')).toBe(whole.get('logits'))
      }),
    )
  })
})

it('cuts a graph of very many layers in no time', () => {
  const lines = ['embed: tokens > x0']
  for (let i = 0; i < 5000; i++) lines.push(`att${i}: x${i} x${i} x${i} > a${i}`, `add${i}: a${i} x${i} w > x${i + 1}`)
  const many = model([...lines, 'last: x5000 > h', 'head: h > logits'], ['w'])
  const start = performance.now()
  expect(cutModel(many, ends).segments.length).toBe(5001)
  expect(performance.now() - start).toBeLessThan(5000)
})

it('answers damaged models with a cut or a KvasirError', () => {
  const file = encodeModel(model(twoLayers, ['table', 'w16']))
  const flips = fc.array(fc.tuple(fc.nat(file.length - 1), fc.nat(255)), { minLength: 1, maxLength: 3 })
  let cuts = 0
  fc.assert(
    fc.property(flips, (changes) => {
      const bytes = file.slice()
      for (const [at, value] of changes) bytes[at] = value
      try {
        cutModel(decodeModel(bytes), ends)
        cuts++
      } catch (error) {
        expect(isKvasirError(error), String(error)).toBe(true)
      }
    }),
    { numRuns: 2000 },
  )
  expect(cuts).toBeGreaterThan(50)
})

/** Every node computes a number from its inputs; reading a value that is not there fails the test. */
function evaluate(nodes: readonly OnnxNode[], values: Map<string, number>): void {
  for (const { input, output, name } of nodes) {
    let hash = name!.length
    for (const value of input) {
      expect(values.has(value), `${name} reads ${value}`).toBe(true)
      hash = (hash * 31 + values.get(value)!) % 1_000_003
    }
    for (const [i, value] of output.entries()) values.set(value, hash + i)
  }
}

/** Layers with random nodes between the attention nodes, each reading random earlier values. */
function randomLines(): fc.Arbitrary<string[]> {
  return fc.array(fc.array(fc.nat(), { minLength: 1, maxLength: 6 }), { minLength: 1, maxLength: 5 }).map((layers) => {
    const known = ['tokens', 'w']
    const lines: string[] = []
    for (const [layer, numbers] of layers.entries()) {
      for (const [i, number] of numbers.entries()) {
        const name = `n${layer}.${i}`
        lines.push(`${name}: ${known[number % known.length]} ${known.at(-1)} > ${name}`)
        known.push(name)
      }
      const query = lines.length ? known.at(-1) : 'tokens'
      lines.push(`q${layer}: ${query} tokens > q${layer}`, `att${layer}: q${layer} q${layer} q${layer} > a${layer}`)
      known.push(`a${layer}`)
    }
    return [...lines, `last: ${known.at(-1)} ${known.at(-3)} > h`, 'head: h w > logits']
  })
}

it('attention is told by domain and name', () => {
  expect([node('att0: q > a'), node('other: q > a')].map(isAttention)).toEqual([true, false])
})

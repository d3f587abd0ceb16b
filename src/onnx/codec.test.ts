import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { isKvasirError } from '../tensor/error.ts'
import { decodeMessage, decodeModel, encodeMessage, encodeModel, make } from './codec.ts'
import { attributeTypes, dataTypes, type OnnxModel } from './schema.ts'

const raw = Uint8Array.of(1, 2, 3, 4, 5, 6, 7, 8)

function sampleModel(): OnnxModel {
  const body = make('Graph', { name: 'then', node: [make('Node', { opType: 'Abs', input: ['x'], output: ['z'] })] })
  const node = make('Node', {
    name: 'n',
    opType: 'Gemm',
    domain: 'kvasir',
    input: ['x', '', 'w'],
    output: ['y'],
    attribute: [
      make('Attribute', { name: 'f', type: attributeTypes.float, f: 0.5 }),
      make('Attribute', { name: 'i', type: attributeTypes.int, i: -3 }),
      make('Attribute', { name: 'big', type: attributeTypes.int, i: 2n ** 63n - 1n }),
      make('Attribute', { name: 'ints', type: attributeTypes.ints, ints: [0, -1, 300, 2 ** 40] }),
      make('Attribute', { name: 's', type: attributeTypes.string, s: Uint8Array.of(104, 105) }),
      make('Attribute', { name: 'g', type: attributeTypes.graph, g: body }),
    ],
  })
  const external = { location: 'w.bin', offset: '6', length: '16' }
  const graph = make('Graph', {
    name: 'g',
    node: [node],
    initializer: [
      make('Tensor', { name: 'raw', dims: [2], dataType: dataTypes.float, rawData: raw }),
      make('Tensor', { name: 'floats', dims: [3], dataType: dataTypes.float, floatData: [1, -2, 0.25] }),
      make('Tensor', { name: 'doubles', dims: [1], dataType: dataTypes.double, doubleData: [Math.PI] }),
      make('Tensor', {
        name: 'w',
        dims: [2, 2],
        dataType: dataTypes.float,
        dataLocation: 1,
        externalData: Object.entries(external).map(([key, value]) => make('StringEntry', { key, value })),
      }),
    ],
  })
  return make('Model', { irVersion: 10, graph, opsetImport: [make('OperatorSet', { domain: '', version: 21 })] })
}

describe('the ONNX codec', () => {
  it('gives back every field that it wrote', () => {
    const model = sampleModel()
    expect(decodeModel(encodeModel(model))).toEqual(model)
  })

  it('gives byte fields as views of the file', () => {
    const file = encodeModel(sampleModel())
    const shifted = new Uint8Array(file.length + 5)
    shifted.set(file, 5)
    const view = shifted.subarray(5) // a file inside a larger buffer
    const { rawData } = decodeModel(view).graph!.initializer[0]!
    expect(rawData!.buffer).toBe(shifted.buffer)
    expect([...rawData!]).toEqual([...raw])
  })

  it('reads packed and unpacked numbers alike', () => {
    const packed = Uint8Array.of(0x0a, 3, 1, 0x80, 1) // field 1 (dims), length 3: 1, 128
    const unpacked = Uint8Array.of(0x08, 1, 0x08, 0x80, 1)
    expect(decodeMessage('Tensor', packed).dims).toEqual([1, 128])
    expect(decodeMessage('Tensor', unpacked).dims).toEqual([1, 128])
  })

  it('keeps every int64 exactly', () => {
    for (const i of [0, 127, 128, 2 ** 31, 2 ** 49, 2 ** 53 - 1, -1, -(2 ** 53) + 1, 2n ** 62n + 1n, -(2n ** 63n)]) {
      expect(decodeMessage('Attribute', encodeMessage('Attribute', make('Attribute', { i }))).i).toBe(i)
    }
  })

  it('skips fields that it does not know', () => {
    const known = encodeMessage('StringEntry', { key: 'k' })
    const strange = [0x80, 0x7d, 5, 0x89, 0x7d, 1, 2, 3, 4, 5, 6, 7, 8, 0x92, 0x7d, 1, 9, 0x9d, 0x7d, 1, 2, 3, 4]
    expect(decodeMessage('StringEntry', Uint8Array.from([...strange, ...known]))).toEqual({ key: 'k' })
  })

  const refusals: Record<string, [number[], string]> = {
    'a length past the end': [[0x12, 5, 1], 'expected 5 bytes'],
    'a length of 2^63': [[0x12, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f], 'before the end'],
    'a varint without an end': [[0x08, 0x80], 'got the end'],
    'a varint of eleven bytes': [[0x08, ...Array(10).fill(0x80), 1], 'more than ten bytes'],
    'field number 0': [[0x00, 1], 'expected a protobuf field'],
    'a group': [[0x0b], 'expected a protobuf field'],
    'the wrong wire type': [[0x3d, 1, 2, 3, 4], 'for Model.graph, got 5'],
    'text that is not UTF-8': [[0x12, 1, 0xff], 'expected UTF-8 for Model.producerName'],
    'no graph': [[0x08, 10], 'with a graph'],
    'no bytes at all': [[], 'with a graph'],
  }
  for (const [name, [bytes, message]] of Object.entries(refusals)) {
    it(`refuses ${name}`, () => {
      expect(() => decodeModel(Uint8Array.from(bytes))).toThrow(message)
    })
  }

  it('refuses endless nesting', () => {
    let bytes = new Uint8Array()
    for (let i = 0; i < 200; i++) {
      const next = new Uint8Array(bytes.length + 5)
      const tag = [0x32, 0x2a, 0x0a][i % 3]! // Attribute.g, Node.attribute, Graph.node
      next.set([tag, 0x80 | (bytes.length & 0x7f), (bytes.length >> 7) & 0x7f])
      next.set(bytes, 3)
      bytes = next.subarray(0, bytes.length + 3)
    }
    expect(() => decodeMessage('Node', bytes)).toThrow('nested at most 64 deep')
  })

  it('answers damaged files with a model or a KvasirError, never anything else', () => {
    const file = encodeModel(sampleModel())
    const damage = fc.record({
      end: fc.nat(file.length),
      flips: fc.array(fc.tuple(fc.nat(file.length - 1), fc.integer({ min: 1, max: 255 })), { maxLength: 4 }),
    })
    let refused = 0
    fc.assert(
      fc.property(damage, ({ end, flips }) => {
        const bytes = file.slice()
        for (const [at, bits] of flips) bytes[at]! ^= bits
        try {
          decodeModel(bytes.subarray(0, end))
        } catch (error) {
          expect(isKvasirError(error) && error.code).toBe('invalid-file')
          refused++
        }
      }),
      { numRuns: 2000 },
    )
    expect(refused).toBeGreaterThan(500)
  })

  it('answers random bytes likewise', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 200 }), (bytes) => {
        try {
          decodeModel(bytes)
        } catch (error) {
          expect(isKvasirError(error) && error.code).toBe('invalid-file')
        }
      }),
      { numRuns: 2000 },
    )
  })
})

/**
 * The messages of ONNX as data: field name -> [field number, kind, 'repeated'?], from onnx.proto. TypeScript types are
 * derived from this table, so a field is added by one line. Parts that Kvasir passes on without looking (functions,
 * sequence types, sparse tensors) have kind `bytes`. Fields that are not listed are dropped by the reader.
 */
import type { Integer } from './wire.ts'

export const schema = {
  Model: {
    irVersion: [1, 'int64'],
    producerName: [2, 'string'],
    producerVersion: [3, 'string'],
    domain: [4, 'string'],
    modelVersion: [5, 'int64'],
    docString: [6, 'string'],
    graph: [7, 'Graph'],
    opsetImport: [8, 'OperatorSet', 'repeated'],
    metadataProps: [14, 'StringEntry', 'repeated'],
    functions: [25, 'bytes', 'repeated'],
  },
  OperatorSet: { domain: [1, 'string'], version: [2, 'int64'] },
  StringEntry: { key: [1, 'string'], value: [2, 'string'] },
  Graph: {
    node: [1, 'Node', 'repeated'],
    name: [2, 'string'],
    initializer: [5, 'Tensor', 'repeated'],
    docString: [10, 'string'],
    input: [11, 'ValueInfo', 'repeated'],
    output: [12, 'ValueInfo', 'repeated'],
    valueInfo: [13, 'ValueInfo', 'repeated'],
    quantizationAnnotation: [14, 'bytes', 'repeated'],
    sparseInitializer: [15, 'bytes', 'repeated'],
  },
  Node: {
    input: [1, 'string', 'repeated'],
    output: [2, 'string', 'repeated'],
    name: [3, 'string'],
    opType: [4, 'string'],
    attribute: [5, 'Attribute', 'repeated'],
    docString: [6, 'string'],
    domain: [7, 'string'],
    overload: [8, 'string'],
    metadataProps: [9, 'StringEntry', 'repeated'],
  },
  Attribute: {
    name: [1, 'string'],
    f: [2, 'float'],
    i: [3, 'int64'],
    s: [4, 'bytes'],
    t: [5, 'Tensor'],
    g: [6, 'Graph'],
    floats: [7, 'float', 'repeated'],
    ints: [8, 'int64', 'repeated'],
    strings: [9, 'bytes', 'repeated'],
    tensors: [10, 'Tensor', 'repeated'],
    graphs: [11, 'Graph', 'repeated'],
    docString: [13, 'string'],
    tp: [14, 'Type'],
    typeProtos: [15, 'Type', 'repeated'],
    type: [20, 'int64'],
    refAttrName: [21, 'string'],
    sparseTensor: [22, 'bytes'],
    sparseTensors: [23, 'bytes', 'repeated'],
  },
  Tensor: {
    dims: [1, 'int64', 'repeated'],
    dataType: [2, 'int64'],
    segment: [3, 'bytes'],
    floatData: [4, 'float', 'repeated'],
    int32Data: [5, 'int64', 'repeated'],
    stringData: [6, 'bytes', 'repeated'],
    int64Data: [7, 'int64', 'repeated'],
    name: [8, 'string'],
    rawData: [9, 'bytes'],
    doubleData: [10, 'double', 'repeated'],
    uint64Data: [11, 'int64', 'repeated'],
    docString: [12, 'string'],
    externalData: [13, 'StringEntry', 'repeated'],
    dataLocation: [14, 'int64'],
    metadataProps: [16, 'StringEntry', 'repeated'],
  },
  ValueInfo: {
    name: [1, 'string'],
    type: [2, 'Type'],
    docString: [3, 'string'],
    metadataProps: [4, 'StringEntry', 'repeated'],
  },
  Type: {
    tensorType: [1, 'TensorType'],
    sequenceType: [4, 'bytes'],
    mapType: [5, 'bytes'],
    denotation: [6, 'string'],
    sparseTensorType: [8, 'bytes'],
    optionalType: [9, 'bytes'],
  },
  TensorType: { elemType: [1, 'int64'], shape: [2, 'Shape'] },
  Shape: { dim: [1, 'Dimension', 'repeated'] },
  Dimension: { dimValue: [1, 'int64'], dimParam: [2, 'string'], denotation: [3, 'string'] },
} as const satisfies Record<string, Record<string, Field>>

export type Field = readonly [number, string] | readonly [number, string, 'repeated']
export type MessageName = keyof typeof schema

interface Scalars {
  int64: Integer
  float: number
  double: number
  string: string
  bytes: Uint8Array
}

type Value<K> = K extends keyof Scalars ? Scalars[K] : K extends MessageName ? Message<K> : never

/** A decoded message: repeated fields are arrays (empty when absent), all others may be undefined. */
export type Message<N extends MessageName> = {
  [F in keyof (typeof schema)[N] as IsRepeated<(typeof schema)[N][F]> extends true ? F : never]: Value<
    Kind<(typeof schema)[N][F]>
  >[]
} & {
  [F in keyof (typeof schema)[N] as IsRepeated<(typeof schema)[N][F]> extends true ? never : F]?: Value<
    Kind<(typeof schema)[N][F]>
  >
}

type Kind<F> = F extends readonly [number, infer K, ...unknown[]] ? K : never
type IsRepeated<F> = F extends readonly [number, unknown, 'repeated'] ? true : false

export type OnnxModel = Message<'Model'>
export type OnnxGraph = Message<'Graph'>
export type OnnxNode = Message<'Node'>
export type OnnxTensor = Message<'Tensor'>
export type OnnxAttribute = Message<'Attribute'>
export type OnnxValueInfo = Message<'ValueInfo'>

/** TensorProto.DataType, the ones that Kvasir names. */
export const dataTypes = {
  float: 1,
  uint8: 2,
  int8: 3,
  int32: 6,
  int64: 7,
  bool: 9,
  float16: 10,
  double: 11,
  bfloat16: 16,
} as const

/** AttributeProto.AttributeType, the ones that Kvasir writes. */
export const attributeTypes = {
  float: 1,
  int: 2,
  string: 3,
  tensor: 4,
  graph: 5,
  floats: 6,
  ints: 7,
  strings: 8,
} as const

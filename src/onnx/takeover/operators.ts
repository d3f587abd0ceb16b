/**
 * The operators that the dense part of a decoder may consist of: what they do to types and shapes. All of them treat
 * each token by itself, as long as the axes that they work along don't hold tokens (`mixing.ts` checks that).
 */
import { dataTypes } from '../schema.ts'
import { add, constant, divide, numberOf, subtract, times } from './linear.ts'
import type { Operator } from './operator.ts'
import { concat, gather, slice, split, topK, where } from './operators-choice.ts'
import {
  attention,
  binary,
  broadcast,
  compare,
  convolution,
  dynamicQuantize,
  embedNorm,
  fusedMatrix,
  gatherBlockQuantized,
  gemm,
  groupQueryAttention,
  matrix,
  norm,
  type OnInts,
  packedMatrix,
  same0,
  softmax,
  unary,
} from './operators-dense.ts'
import {
  cast,
  constantNode,
  constantOfShape,
  range,
  reduce,
  reshape,
  shapeOf,
  squeeze,
  transpose,
  unsqueeze,
} from './operators-shape.ts'

const unaryNames = `Abs Ceil Cos Dropout Elu Erf Exp FastGelu Floor Gelu HardSigmoid HardSwish LeakyRelu Log Mish Neg
  QuickGelu Reciprocal Relu Round Selu Sigmoid Sign Sin Softplus Softsign Sqrt Tan Tanh Clip BiasGelu RotaryEmbedding
  MoE QMoE Trilu CumSum BitShift`

const floorDivide: OnInts = (a, b) => {
  const [x, y] = [numberOf(a), numberOf(b)]
  return x !== undefined && y ? constant(Math.trunc(x / y)) : divide(a, b)
}

export const operators: Readonly<Record<string, Operator>> = {
  ...Object.fromEntries(unaryNames.split(/\s+/).map((name) => [name, unary])),
  CumSum: { ...unary, mixes: () => 'all' },
  Trilu: { ...unary, mixes: () => 'all' },
  Neg: {
    infer: (_, [x = {}]) => [{ type: x.type, dims: x.dims, ints: x.ints?.map((dim) => times(dim, constant(-1))) }],
  },
  Not: unary,
  IsNaN: { infer: (_, [x = {}]) => [{ type: dataTypes.bool, dims: x.dims }] },
  Identity: same0,
  Cast: cast,
  Constant: constantNode,
  ConstantOfShape: constantOfShape,
  Range: range,
  Shape: shapeOf,
  Add: binary(add),
  Sub: binary(subtract),
  Mul: binary(times),
  Div: binary(floorDivide),
  ...Object.fromEntries(['Pow', 'Mod', 'Min', 'Max', 'And', 'Or', 'Xor', 'Sum'].map((name) => [name, binary()])),
  Equal: compare((a, b) => a === b),
  ...Object.fromEntries(['Greater', 'GreaterOrEqual', 'Less', 'LessOrEqual'].map((name) => [name, compare()])),
  Where: where,
  Expand: { infer: (_, [x = {}, shape]) => [{ type: x.type, dims: broadcast(x.dims, shape?.ints) }] },
  Unsqueeze: unsqueeze,
  Squeeze: squeeze,
  Reshape: reshape,
  Flatten: { infer: (_, [x = {}]) => [{ type: x.type }], mixes: () => 'all' },
  Transpose: transpose,
  Concat: concat,
  Split: split,
  Slice: slice,
  Gather: gather,
  GatherElements: { infer: (_, [x = {}, at]) => [{ type: x.type, dims: at?.dims }], mixes: gather.mixes! },
  ScatterElements: { ...unary, mixes: gather.mixes! },
  GatherBlockQuantized: gatherBlockQuantized,
  TopK: topK,
  MatMul: matrix(),
  FusedMatMul: fusedMatrix,
  Gemm: gemm,
  MatMulInteger: matrix(dataTypes.int32),
  MatMulIntegerToFloat: matrix(dataTypes.float),
  DynamicQuantizeMatMul: matrix(dataTypes.float),
  MatMulNBits: packedMatrix,
  MatMulBnb4: packedMatrix,
  DynamicQuantizeLinear: dynamicQuantize,
  QuantizeLinear: { infer: (_, [x, , zero]) => [{ type: zero?.type ?? dataTypes.uint8, dims: x?.dims }] },
  DequantizeLinear: { infer: (_, [x, scale]) => [{ type: scale?.type, dims: x?.dims }] },
  Conv: convolution,
  Softmax: softmax,
  LogSoftmax: softmax,
  LayerNormalization: norm,
  SimplifiedLayerNormalization: norm,
  RMSNormalization: norm,
  SkipLayerNormalization: norm,
  SkipSimplifiedLayerNormalization: norm,
  EmbedLayerNormalization: embedNorm,
  ...Object.fromEntries(
    ['Mean', 'Sum', 'Max', 'Min', 'L2', 'SumSquare', 'Prod', 'L1'].map((kind) => [`Reduce${kind}`, reduce]),
  ),
  Attention: attention,
  GroupQueryAttention: groupQueryAttention,
}

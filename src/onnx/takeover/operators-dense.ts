/** Operators on numbers: element by element, products, norms. See `operators.ts`. */
import { dataTypes } from '../schema.ts'
import { intAttribute, intsAttribute, textAttribute } from './attributes.ts'
import type { Fact } from './facts.ts'
import { add, broadcastDim, constant, type Dim, divide, newTokens, numberOf, times } from './linear.ts'
import type { Operator } from './operator.ts'

export function broadcast(...shapes: readonly (readonly Dim[] | undefined)[]): readonly Dim[] | undefined {
  return shapes.reduce((a, b) => {
    if (!a || !b) return undefined
    const rank = Math.max(a.length, b.length)
    const at = (dims: readonly Dim[], i: number): Dim => {
      const index = i - (rank - dims.length)
      return index < 0 ? constant(1) : dims[index]
    }
    return Array.from({ length: rank }, (_, i) => broadcastDim(at(a, i), at(b, i)))
  })
}

export type OnInts = (a: Dim, b: Dim) => Dim

function combine(a: Fact | undefined, b: Fact | undefined, on: OnInts): readonly Dim[] | undefined {
  if (!a?.ints || !b?.ints) return undefined
  const length = a.ints.length === 1 ? b.ints.length : a.ints.length
  if (b.ints.length !== 1 && b.ints.length !== length) return undefined
  return Array.from({ length }, (_, i) =>
    on(a.ints![a.ints!.length === 1 ? 0 : i], b.ints![b.ints!.length === 1 ? 0 : i]),
  )
}

export const same0: Operator = { infer: (_, [x = {}]) => [{ type: x.type, dims: x.dims, ints: x.ints }] }
export const unary: Operator = { infer: (_, [x = {}]) => [{ type: x.type, dims: x.dims }] }

export function binary(on?: OnInts, type?: number): Operator {
  return {
    infer: (_, [a, b]) => [
      { type: type ?? a?.type ?? b?.type, dims: broadcast(a?.dims, b?.dims), ints: on && combine(a, b, on) },
    ],
  }
}

export const compare = (on?: (a: number, b: number) => boolean): Operator =>
  binary(
    on &&
      ((a, b) => {
        const [x, y] = [numberOf(a), numberOf(b)]
        if (x !== undefined && y !== undefined) return constant(Number(on(x, y)))
        // Lengths are never negative, so that T or P can't be -1, which is what exporters ask.
        return (x ?? y) === -1 ? constant(0) : undefined
      }),
    dataTypes.bool,
  )

/** Norms: the first output is like the input, the fourth (of the Skip kinds) is the sum. */
export const norm: Operator = {
  infer: (_, [x = {}]) => [{ type: x.type, dims: x.dims }, {}, {}, { type: x.type, dims: x.dims }],
  mixes: (node) => [intAttribute(node, 'axis') ?? -1],
}

function matrixDims(a: readonly Dim[] | undefined, b: readonly Dim[] | undefined): readonly Dim[] | undefined {
  if (!a || !b || a.length < 2 || b.length < 2) return undefined
  const batch = broadcast(a.slice(0, -2), b.slice(0, -2))
  return batch && [...batch, a.at(-2), b.at(-1)]
}

/** Only the last axis of A meets a weight. */
export const matrix = (type?: number): Operator => ({
  infer: (_, [a, b]) => [{ type: type ?? a?.type, dims: matrixDims(a?.dims, b?.dims) }],
  mixes: () => [-1],
})

export const fusedMatrix: Operator = {
  infer: (node, [a, b]) => {
    const turned = (dims: readonly Dim[] | undefined, name: string): readonly Dim[] | undefined => {
      return dims && intAttribute(node, name) ? [...dims.slice(0, -2), dims.at(-1), dims.at(-2)] : dims
    }
    return [{ type: a?.type, dims: matrixDims(turned(a?.dims, 'transA'), turned(b?.dims, 'transB')) }]
  },
  mixes: (node) => [intAttribute(node, 'transA') ? -2 : -1],
}

export const packedMatrix: Operator = {
  infer: (node, [a]) => [
    { type: a?.type, dims: a?.dims && [...a.dims.slice(0, -1), constant(intAttribute(node, 'N') ?? 0)] },
  ],
  mixes: () => [-1],
}

export const softmax: Operator = { ...unary, mixes: (node) => [intAttribute(node, 'axis') ?? -1] }

/** A convolution along one axis, which is what states of convolutions come from. */
export const convolution: Operator = {
  infer: (node, [x = {}, weight]) => {
    const [batch, , length] = x.dims ?? []
    const kernel = numberOf(weight?.dims?.[2])
    const isPadded = (textAttribute(node, 'auto_pad') ?? 'NOTSET') !== 'NOTSET'
    if (x.dims?.length !== 3 || isPadded || kernel === undefined || (intsAttribute(node, 'strides')?.[0] ?? 1) !== 1) {
      return [{ type: x.type }]
    }
    const pads = intsAttribute(node, 'pads') ?? []
    const dilation = intsAttribute(node, 'dilations')?.[0] ?? 1
    const added = (pads[0] ?? 0) + (pads[1] ?? 0) - dilation * (kernel - 1)
    return [{ type: x.type, dims: [batch, weight?.dims?.[0], add(length, constant(added))] }]
  },
  mixes: () => [-1],
}

export const gemm: Operator = {
  infer: (node, [a, b]) => {
    const columns = intAttribute(node, 'transB') ? b?.dims?.[0] : b?.dims?.[1]
    const rows = intAttribute(node, 'transA') ? a?.dims?.[1] : a?.dims?.[0]
    return [{ type: a?.type, dims: [rows, columns] }]
  },
  mixes: (node) => [intAttribute(node, 'transA') ? 0 : -1],
}

export const gatherBlockQuantized: Operator = {
  infer: (node, [data, indices, scales]) => {
    const packs = data?.type === dataTypes.uint8 ? 8 / (intAttribute(node, 'bits') ?? 4) : 1
    const rest = data?.dims?.slice(1).map((dim, i, all) => (i === all.length - 1 ? times(dim, constant(packs)) : dim))
    return [{ type: scales?.type, dims: indices?.dims && rest && [...indices.dims, ...rest] }]
  },
}

/** Embeddings of tokens and positions, their sum normed, and on request the sum: inputs 2 and 8 are table and positions. */
export const embedNorm: Operator = {
  infer: (node, [tokens, , table]) => {
    const rows = { type: table?.type, dims: tokens?.dims && [...tokens.dims, table?.dims?.[1]] }
    const counts = { type: dataTypes.int32, dims: tokens?.dims && [tokens.dims[0]] }
    return [rows, counts, rows].slice(0, node.output.length)
  },
  // Without positions they are counted from the first token of the step.
  mixes: (node) => (node.input[8] ? [] : 'all'),
}

export const dynamicQuantize: Operator = {
  infer: (_, [x]) => [
    { type: dataTypes.uint8, dims: x?.dims },
    { type: dataTypes.float, dims: [] },
    { type: dataTypes.uint8, dims: [] },
  ],
}

/** Our own node: `[1, T, H * E]`, also where the shape of its query is not known. */
export const attention: Operator = {
  infer: (node) => {
    const heads = intAttribute(node, 'num_heads') ?? 0
    const valueDim = intAttribute(node, 'value_dim') ?? intAttribute(node, 'head_dim') ?? 0
    if (node.domain !== 'kvasir') return []
    return [{ type: dataTypes.float, dims: [constant(1), newTokens, constant(heads * valueDim)] }]
  },
}

/** As wide as the query, unless that holds keys and values too. */
export const groupQueryAttention: Operator = {
  infer: (node, [query]) => {
    const isPacked = !node.input[1]
    const heads = intAttribute(node, 'num_heads') ?? 0
    const parts = constant(heads + 2 * (intAttribute(node, 'kv_num_heads') ?? 0))
    const [width] = query?.dims?.slice(-1) ?? []
    const output = isPacked ? times(divide(width, parts), constant(heads)) : width
    return [{ type: query?.type, dims: query?.dims && [...query.dims.slice(0, -1), output] }]
  },
}

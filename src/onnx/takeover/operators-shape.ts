/** Operators on shapes: they give numbers other axes, or give the sizes of axes as numbers. See `operators.ts`. */
import { dataTypes, type OnnxNode } from '../schema.ts'
import { floatAttribute, intAttribute, intsAttribute } from './attributes.ts'
import type { Fact } from './facts.ts'
import { constant, type Dim, divide, numberOf, product, subtract } from './linear.ts'
import type { Operator } from './operator.ts'

/** A non-negative axis. */
export function axisOf(axis: number, rank: number): number {
  return axis < 0 ? axis + rank : axis
}

function axesOf(node: OnnxNode, inputs: readonly Fact[]): readonly number[] | undefined {
  return intsAttribute(node, 'axes') ?? inputs[1]?.ints?.map((dim) => numberOf(dim) ?? Number.NaN)
}

export const reduce: Operator = {
  infer: (node, inputs) => {
    const [x = {}] = inputs
    const axes = axesOf(node, inputs)
    const keeps = intAttribute(node, 'keepdims') ?? 1
    if (!x.dims) return [{ type: x.type }]
    const reduced = new Set((axes ?? x.dims.map((_, i) => i)).map((axis) => axisOf(axis, x.dims!.length)))
    const dims = x.dims.flatMap((dim, i) => (!reduced.has(i) ? [dim] : keeps ? [constant(1)] : []))
    return [{ type: x.type, dims }]
  },
  mixes: (node, inputs) => axesOf(node, inputs) ?? 'all',
}

export const unsqueeze: Operator = {
  infer: (node, inputs) => {
    const [x = {}] = inputs
    const axes = axesOf(node, inputs)
    if (!x.dims || !axes) return [{ type: x.type, ints: x.ints }]
    const rank = x.dims.length + axes.length
    const added = new Set(axes.map((axis) => axisOf(axis, rank)))
    const rest = [...x.dims]
    const dims = Array.from({ length: rank }, (_, i) => (added.has(i) ? constant(1) : rest.shift()))
    return [{ type: x.type, dims, ints: rank <= 1 ? x.ints : undefined }]
  },
}

export const squeeze: Operator = {
  infer: (node, inputs) => {
    const [x = {}] = inputs
    const axes = axesOf(node, inputs)?.map((axis) => axisOf(axis, x.dims?.length ?? 0))
    const dims = x.dims?.filter((dim, i) => (axes ? !axes.includes(i) : numberOf(dim) !== 1))
    return [{ type: x.type, dims, ints: x.ints }]
  },
}

export const reshape: Operator = {
  infer: (node, [x = {}, shape]) => {
    const target = shape?.ints
    if (!target) return [{ type: x.type }]
    const keepsZero = intAttribute(node, 'allowzero') !== 1
    const known = target.map((dim, i) => (keepsZero && numberOf(dim) === 0 ? x.dims?.[i] : dim))
    const open = known.findIndex((dim) => numberOf(dim) === -1)
    const rest = divide(x.dims && product(x.dims), product(known.filter((_, i) => i !== open)))
    const dims = known.map((dim, i) => (i === open ? rest : dim))
    return [{ type: x.type, dims, ints: dims.length <= 1 ? x.ints : undefined }]
  },
}

export const transpose: Operator = {
  infer: (node, [x = {}]) => {
    const perm = intsAttribute(node, 'perm')
    const dims = x.dims && (perm?.length ? perm.map((axis) => x.dims![axis]) : x.dims.toReversed())
    return [{ type: x.type, dims }]
  },
}

export const shapeOf: Operator = {
  infer: (node, [x = {}]) => {
    const rank = x.dims?.length
    const ints = x.dims?.slice(intAttribute(node, 'start') ?? 0, intAttribute(node, 'end') ?? rank)
    return [{ type: dataTypes.int64, dims: ints && [constant(ints.length)], ints }]
  },
}

export const constantOfShape: Operator = {
  infer: (node, [shape]) => {
    const tensor = node.attribute.find(({ name }) => name === 'value')?.t
    const [fill] = [...(tensor?.int64Data ?? [])].map(Number)
    const raw = tensor?.rawData
    const int64 = raw?.length === 8 ? Number(new DataView(raw.buffer, raw.byteOffset).getBigInt64(0, true)) : fill
    const [length] = shape?.ints?.length === 1 ? shape.ints.map(numberOf) : []
    const isInts = tensor?.dataType === dataTypes.int64 && int64 !== undefined && length !== undefined && length <= 64
    const ints = isInts ? new Array<Dim>(length).fill(constant(int64)) : undefined
    return [{ type: tensor ? Number(tensor.dataType) : dataTypes.float, dims: shape?.ints, ints }]
  },
}

export const range: Operator = {
  infer: (_, [start, limit, step]) => {
    const isOne = numberOf(step?.ints?.[0]) === 1
    return [{ type: start?.type, dims: [isOne ? subtract(limit?.ints?.[0], start?.ints?.[0]) : undefined] }]
  },
}

export const cast: Operator = {
  infer: (node, [x = {}]) => [{ type: intAttribute(node, 'to'), dims: x.dims, ints: x.ints }],
}

export const constantNode: Operator = {
  infer: (node) => {
    const single = intAttribute(node, 'value_int')
    const several = intsAttribute(node, 'value_ints')
    if (single !== undefined) return [{ type: dataTypes.int64, dims: [], ints: [constant(single)] }]
    if (several?.length)
      return [{ type: dataTypes.int64, dims: [constant(several.length)], ints: several.map(constant) }]
    return [{ type: dataTypes.float, dims: floatAttribute(node, 'value_float') === undefined ? undefined : [] }]
  },
}

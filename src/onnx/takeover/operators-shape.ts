/** Operators that move numbers, choose them or say where they are. See `operators.ts`. */
import { dataTypes, type OnnxNode } from '../schema.ts'
import { floatAttribute, intAttribute, intsAttribute } from './attributes.ts'
import type { Fact } from './facts.ts'
import { add, constant, type Dim, divide, numberOf, product, subtract, times } from './linear.ts'
import type { Operator } from './operator.ts'
import { broadcast } from './operators-dense.ts'

/** A non-negative axis. */
function axisOf(axis: number, rank: number): number {
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

export const concat: Operator = {
  infer: (node, inputs) => {
    const [first = {}] = inputs
    const ints = inputs.every((input) => input.ints) ? inputs.flatMap((input) => input.ints!) : undefined
    if (inputs.length === 0 || !inputs.every((input) => input.dims)) return [{ type: first.type, ints }]
    const axis = axisOf(intAttribute(node, 'axis') ?? 0, first.dims!.length)
    const dims = first.dims!.map((dim, i) => {
      if (i !== axis) return inputs.reduce<Dim>((known, input) => known ?? input.dims![i], dim)
      return inputs.slice(1).reduce<Dim>((sum, input) => add(sum, input.dims![i]), dim)
    })
    return [{ type: first.type, dims, ints }]
  },
  mixes: (node) => [intAttribute(node, 'axis') ?? 0],
}

export const split: Operator = {
  infer: (node, [x = {}, sizes]) => {
    const axis = axisOf(intAttribute(node, 'axis') ?? 0, x.dims?.length ?? 0)
    const count = node.output.length
    const each = sizes?.ints ?? intsAttribute(node, 'split')?.map(constant)
    return node.output.map((_, i) => {
      const part = each ? each[i] : divide(x.dims?.[axis], constant(count))
      return { type: x.type, dims: x.dims?.map((dim, n) => (n === axis ? part : dim)) }
    })
  },
  mixes: (node) => [intAttribute(node, 'axis') ?? 0],
}

export const gather: Operator = {
  infer: (node, [data = {}, indices = {}]) => {
    const axis = axisOf(intAttribute(node, 'axis') ?? 0, data.dims?.length ?? 0)
    const ints =
      data.ints &&
      indices.ints?.map((at) => {
        const index = numberOf(at)
        return index === undefined ? undefined : data.ints!.at(index)
      })
    const dims = data.dims &&
      indices.dims && [...data.dims.slice(0, axis), ...indices.dims, ...data.dims.slice(axis + 1)]
    return [{ type: data.type, dims, ints }]
  },
  mixes: (node) => [intAttribute(node, 'axis') ?? 0],
}

/** Integers that mean "to the end". */
const farEnd = 2 ** 31 - 2

/** The starts, ends and axes of a Slice whose steps are 1. */
function sliceRanges(node: OnnxNode, inputs: readonly Fact[]) {
  const [, starts, ends, axes, steps] = inputs
  if (!starts?.ints || !ends?.ints) return undefined
  if (node.input[4] && !steps?.ints?.every((step) => numberOf(step) === 1)) return undefined
  const along = node.input[3] ? axes?.ints?.map(numberOf) : starts.ints.map((_, i) => i)
  if (!along?.every((axis) => axis !== undefined)) return undefined
  return along.map((axis, i) => ({ axis: axis as number, start: starts.ints![i], end: ends.ints![i] }))
}

/** Length of [start, end) of `dim`, by the rules of Slice. */
function sliceDim(dim: Dim, start: Dim, end: Dim): Dim {
  const fromEnd = (at: Dim): Dim => {
    // No length is negative, so that one less than nothing is counted from the end.
    const isNegative = at && at.t <= 0 && at.p <= 0 && at.c <= 0 && at.t + at.p + at.c < 0
    return isNegative ? add(dim, at) : at
  }
  const from = fromEnd(start)
  const last = numberOf(end)
  const whole = numberOf(dim)
  let to = fromEnd(end)
  if (last !== undefined && last >= farEnd) to = dim
  else if (last !== undefined && whole !== undefined && last > whole) to = dim
  return subtract(to, from)
}

export const slice: Operator = {
  infer: (node, inputs) => {
    const [x = {}] = inputs
    const ranges = sliceRanges(node, inputs)
    if (!ranges || !x.dims) return [{ type: x.type, dims: x.dims?.map(() => undefined) }]
    const dims = [...x.dims]
    for (const { axis, start, end } of ranges) {
      const at = axisOf(axis, dims.length)
      dims[at] = sliceDim(dims[at], start, end)
    }
    const [range] = ranges
    const [from, to] = [numberOf(range?.start), numberOf(range?.end)]
    const ints = x.ints && from !== undefined && to !== undefined ? x.ints.slice(from, to) : undefined
    return [{ type: x.type, dims, ints }]
  },
  mixes: (node, inputs) => sliceRanges(node, inputs)?.map(({ axis }) => axis) ?? 'all',
}

export const transpose: Operator = {
  infer: (node, [x = {}]) => {
    const perm = intsAttribute(node, 'perm')
    const dims = x.dims && (perm?.length ? perm.map((axis) => x.dims![axis]) : x.dims.toReversed())
    return [{ type: x.type, dims }]
  },
}

export const where: Operator = {
  infer: (_, [condition = {}, a = {}, b = {}]) => {
    const length = Math.max(condition.ints?.length ?? 0, a.ints?.length ?? 0, b.ints?.length ?? 0)
    const pick = (list: readonly Dim[], i: number): Dim => list[list.length === 1 ? 0 : i]
    const ints =
      condition.ints && a.ints && b.ints
        ? Array.from({ length }, (_, i) => {
            const chosen = numberOf(pick(condition.ints!, i))
            return chosen === undefined ? undefined : pick(chosen ? a.ints! : b.ints!, i)
          })
        : undefined
    return [{ type: a.type ?? b.type, dims: broadcast(condition.dims, a.dims, b.dims), ints }]
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

export const dynamicQuantize: Operator = {
  infer: (_, [x]) => [
    { type: dataTypes.uint8, dims: x?.dims },
    { type: dataTypes.float, dims: [] },
    { type: dataTypes.uint8, dims: [] },
  ],
}

export const topK: Operator = {
  infer: (node, [x = {}, count]) => {
    const axis = axisOf(intAttribute(node, 'axis') ?? -1, x.dims?.length ?? 0)
    const dims = x.dims?.map((dim, i) => (i === axis ? count?.ints?.[0] : dim))
    return [
      { type: x.type, dims },
      { type: dataTypes.int64, dims },
    ]
  },
  mixes: (node) => [intAttribute(node, 'axis') ?? -1],
}

/** Our own node: `[1, T, H * E]`. */
export const attention: Operator = {
  infer: (node, [query]) => {
    const heads = intAttribute(node, 'num_heads') ?? 0
    const valueDim = intAttribute(node, 'value_dim') ?? intAttribute(node, 'head_dim') ?? 0
    if (node.domain !== 'kvasir') return []
    return [{ type: dataTypes.float, dims: query?.dims && [...query.dims.slice(0, 2), constant(heads * valueDim)] }]
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

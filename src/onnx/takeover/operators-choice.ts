/** Operators that join numbers, divide them, or choose some of them. See `operators.ts`. */
import { dataTypes, type OnnxNode } from '../schema.ts'
import { intAttribute, intsAttribute } from './attributes.ts'
import type { Fact } from './facts.ts'
import { add, constant, type Dim, divide, numberOf, subtract } from './linear.ts'
import type { Operator } from './operator.ts'
import { broadcast } from './operators-dense.ts'
import { axisOf } from './operators-shape.ts'

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

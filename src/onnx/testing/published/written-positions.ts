/** Positions and rotation as single nodes. */
import { dataTypes } from '../../schema.ts'
import { stepLengths } from './steps.ts'
import type { PublishedWriter } from './writer.ts'

export interface RotaryValues {
  /** `[B, 1, S, D]` */
  readonly cos: string
  readonly sin: string
}

export interface LongRotary {
  readonly length: number
  readonly factor: number
  /** What is compared with the length: the largest position of a step (default), or the size of the mask. */
  readonly by?: 'mask'
}

/** cos and sin of positions times inverse frequencies, in f32. */
export function inverseFrequencyTables(w: PublishedWriter, long?: LongRotary): RotaryValues {
  const { headDim, theta } = w.settings
  const pairs = headDim / 2
  const frequencies = (name: string, divisor: number): string => {
    const values = Array.from({ length: pairs }, (_, i) => theta ** (-i / pairs) / divisor)
    return w.tensor(`model.rotary_emb.${name}`, values, [1, pairs, 1], dataTypes.float)
  }
  const short = frequencies('inv_freq', 1)
  const inverse = long ? chosenByLength(w, long, frequencies('long_inv_freq', long.factor), short) : short
  const positions = w.node('Cast', [w.node('Unsqueeze', ['position_ids', w.integers([1])])], undefined, {
    attributes: { to: { int: dataTypes.float } },
  })
  const angles = w.node('Transpose', [w.node('MatMul', [inverse, positions])], undefined, {
    attributes: { perm: { ints: [0, 2, 1] } },
  })
  const both = w.node('Concat', [angles, angles], undefined, { attributes: { axis: { int: -1 } } })
  const table = (opType: string): string => {
    const cast = w.node('Cast', [w.node(opType, [both])], undefined, { attributes: { to: { int: w.float } } })
    return w.node('Unsqueeze', [cast, w.integers([1])])
  }
  return { cos: table('Cos'), sin: table('Sin') }
}

/** As Optimum traces it: the end of the step decides. */
function chosenByLength(w: PublishedWriter, { length, by }: LongRotary, far: string, near: string): string {
  const last = (): string => w.node('ReduceMax', ['position_ids'], undefined, { attributes: { keepdims: { int: 0 } } })
  const end = by === 'mask' ? stepLengths(w).total : w.node('Add', [last(), w.scalar(1)])
  return w.node('Where', [w.node('Greater', [end, w.scalar(length)]), far, near])
}

/** Tables `[1, 1, positions, D]`, cut to the length so far, squeezed and looked up. */
export function slicedTables(w: PublishedWriter): RotaryValues {
  const { headDim, theta, maxPositions } = w.settings
  const { total } = stepLengths(w)
  const end = w.node('Unsqueeze', [total, w.integers([0])])
  const values = (name: string, of: (angle: number) => number): string => {
    const table = Array.from({ length: maxPositions * headDim }, (_, i) => {
      const pair = (i % headDim) % (headDim / 2)
      return of(Math.floor(i / headDim) * theta ** (-pair / (headDim / 2)))
    })
    const all = w.tensor(name, table, [1, 1, maxPositions, headDim])
    const cut = w.node('Slice', [all, w.integers([0]), end, w.integers([2]), w.integers([1])])
    const flat = w.node('Squeeze', [w.node('Squeeze', [cut, w.integers([1])]), w.integers([0])])
    const rows = w.node('Gather', [flat, 'position_ids'], undefined, { attributes: { axis: { int: 0 } } })
    return w.node('Unsqueeze', [rows, w.integers([1])])
  }
  return { cos: values('cos_cached', Math.cos), sin: values('sin_cached', Math.sin) }
}

/** x * cos + rotate_half(x) * sin. */
export function rotate(w: PublishedWriter, x: string, { cos, sin }: RotaryValues): string {
  const half = w.settings.headDim / 2
  const slice = (from: number, to: number): string =>
    w.node('Slice', [x, w.integers([from]), w.integers([to]), w.integers([3]), w.integers([1])])
  const turned = w.node('Concat', [w.node('Neg', [slice(half, Number.MAX_SAFE_INTEGER)]), slice(0, half)], undefined, {
    attributes: { axis: { int: -1 } },
  })
  return w.node('Add', [w.node('Mul', [x, cos]), w.node('Mul', [turned, sin])])
}

/** Positions of OPT: the cumulated mask, less one, from the number of earlier tokens on. */
export function maskPositions(w: PublishedWriter, offset = 2): string {
  const sum = w.node('CumSum', ['attention_mask', w.scalar(1)])
  const all = w.node('Sub', [w.node('Mul', [sum, 'attention_mask']), w.integers([1])])
  const { fresh, total } = stepLengths(w)
  const past = w.node('Unsqueeze', [w.node('Sub', [total, fresh]), w.integers([0])])
  const end = w.integers([Number.MAX_SAFE_INTEGER])
  const own = w.node('Slice', [all, past, end, w.integers([1]), w.integers([1])])
  return w.node('Add', [own, w.integers([offset])])
}

/** Positions that a graph makes itself, from the lengths of the step. */
export function rangePositions(w: PublishedWriter): string {
  const { fresh, total } = stepLengths(w)
  const range = w.node('Range', [w.node('Sub', [total, fresh]), total, w.scalar(1)])
  return w.node('Unsqueeze', [range, w.integers([0])])
}

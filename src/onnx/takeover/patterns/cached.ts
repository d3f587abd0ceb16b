/** From what an attention's products read back to the Concat of a graph's past with new keys or values. */
import { readNumbers } from '../../constants.ts'
import type { OnnxNode } from '../../schema.ts'
import { intAttribute, intsAttribute } from '../attributes.ts'
import type { GraphEditor } from '../editor.ts'
import { numberOf } from '../linear.ts'

export interface Cached {
  /** `past_key_values.0` */
  readonly state: string
  /** New keys or values: `[1, K, T, D]`, `[K, T, D]`, or `[1, T, 2 * D]` where both lie in one tensor. */
  readonly fresh: string
  /** They are stored with the two last axes exchanged. */
  readonly isTransposed: boolean
  readonly isRepeated: boolean
  /** What keys are multiplied with after they were stored. */
  readonly factor: number
  /** Where several lie in one tensor: how many, and which one this is. */
  readonly numParts: number
  readonly part: number
}

/**
 * @param isTransposed whether the product reads `[.., D, T]`
 * @returns undefined when nothing is cached there in a way that is known
 */
export async function followToCache(
  editor: GraphEditor,
  value: string,
  isTransposed: boolean,
): Promise<Cached | undefined> {
  let name = value
  let [isTurned, isRepeated, factor, numParts, part] = [isTransposed, false, 1, 1, 0]
  for (let steps = 0; steps < 16; steps++) {
    const node = editor.producer(name)
    const [input = '', second = ''] = node?.input ?? []
    switch (node?.opType) {
      case 'Concat': {
        const state = concatState(editor, node, isTurned)
        const cached = { fresh: second, isTransposed: isTurned, isRepeated, factor, numParts, part }
        return state === undefined ? undefined : { state, ...cached }
      }
      case 'Mul': {
        const [variable, constant] = editor.fact(second).isConstant ? [input, second] : [second, input]
        const number = await scalar(editor, constant)
        if (number === undefined) return undefined
        factor *= number
        name = variable
        break
      }
      case 'Expand': {
        const dims = editor.fact(input).dims
        if (dims?.length !== 5 || numberOf(dims[2]) !== 1) return undefined // heads repeated in another order
        isRepeated = true
        name = input
        break
      }
      case 'Transpose':
        if (!swapsLast(intsAttribute(node, 'perm'))) return undefined
        isTurned = !isTurned
        name = input
        break
      case 'Split': {
        const sizes = node.output.map((output) => editor.size(output, -1))
        const isLast = [-1, (editor.fact(input).dims?.length ?? 0) - 1].includes(intAttribute(node, 'axis') ?? 0)
        if (!isLast || sizes.length !== 2 || sizes[0] === undefined || sizes[0] !== sizes[1]) return undefined
        numParts = sizes.length
        part = node.output.indexOf(name)
        name = input
        break
      }
      case 'Cast':
      case 'Reshape':
      case 'Unsqueeze':
      case 'Identity':
        name = input
        break
      default:
        return undefined
    }
  }
  return undefined
}

function swapsLast(perm: readonly number[] | undefined): boolean {
  return String(perm) === '0,1,3,2' || String(perm) === '0,2,1'
}

/** The state behind a Concat of a past (`past_key_values.N.key` and its like) and new rows along the axis of tokens. */
function concatState(editor: GraphEditor, node: OnnxNode, isTransposed: boolean): string | undefined {
  const [past = '', ...others] = node.input
  const rank = editor.fact(past).dims?.length ?? editor.fact(node.output[0] ?? '').dims?.length
  const match = editor.isInput(past) ? /^(.*?)[._](key|value|key_value)$/.exec(past) : null
  if (!match || others.length !== 1 || (rank !== 3 && rank !== 4)) return undefined
  const axis = intAttribute(node, 'axis') ?? 0
  return (axis < 0 ? axis + rank : axis) === rank - (isTransposed ? 1 : 2) ? match[1] : undefined
}

/** A constant of one number. */
export async function scalar(editor: GraphEditor, name: string): Promise<number | undefined> {
  const node = editor.producer(name)
  const value = node?.attribute.find((attribute) => attribute.name === 'value')
  const tensor = editor.initializer(name) ?? (node?.opType === 'Constant' ? value?.t : undefined)
  if (tensor) {
    const { values } = await readNumbers(tensor)
    return values.length === 1 ? values[0] : undefined
  }
  const [input = ''] = node?.input ?? []
  if (node?.opType === 'Sqrt' || node?.opType === 'Cast') {
    const inner = await scalar(editor, input)
    return inner === undefined ? undefined : node.opType === 'Sqrt' ? Math.sqrt(inner) : inner
  }
  return undefined
}

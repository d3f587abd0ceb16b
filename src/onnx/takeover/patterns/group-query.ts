/**
 * com.microsoft GroupQueryAttention, separate or packed. Lengths and masks of its inputs (`seqlens_k`,
 * `total_sequence_length`) say nothing that a cache does not know.
 */
import type { OnnxNode } from '../../schema.ts'
import { floatAttribute, intAttribute, textAttribute } from '../attributes.ts'
import type { FoundAttention, GraphRotation, Pattern } from '../contract.ts'
import type { GraphEditor } from '../editor.ts'
import { describeEach, refuse } from '../refuse.ts'
import { rotationInFront } from '../rotation.ts'
import { flat, inputAt, lastSize, refuseInputs, refuseOutput, requiredInt, stateOf } from './inputs.ts'

export const groupQuery: Pattern = {
  find: (editor, refused) => describeEach(editor.nodes.filter(isGroupQuery), (node) => describe(editor, node), refused),
}

function isGroupQuery({ opType, domain }: OnnxNode): boolean {
  return opType === 'GroupQueryAttention' && domain === 'com.microsoft'
}

function describe(editor: GraphEditor, node: OnnxNode): FoundAttention {
  refuseSettings(editor, node)
  const numHeads = requiredInt(node, 'num_heads')
  const numKvHeads = requiredInt(node, 'kv_num_heads')
  if (numHeads % numKvHeads) throw refuse(node, `expected kv_num_heads to divide ${numHeads}, got ${numKvHeads}`)
  const sizes = { numHeads, numKvHeads }
  const past = inputAt(node, 3)
  const inputs = inputAt(node, 1) ? separate(editor, node, sizes) : packed(editor, node, sizes)
  const window = intAttribute(node, 'local_window_size') ?? -1
  const bias = inputAt(node, 10)
  const origin = sharedState(editor, node, past)
  const normed = withNorms(editor, node, inputs, sizes)
  return {
    kind: 'GroupQueryAttention',
    anchor: node,
    ...normed,
    ...(origin !== undefined && { key: undefined, value: undefined, sharesStateOf: origin }),
    output: flat(node.output[0] ?? ''),
    ...sizes,
    valueDim: inputs.headDim,
    scale: floatAttribute(node, 'scale') || undefined,
    softcap: floatAttribute(node, 'softcap') || undefined,
    window: window > 0 ? window : undefined,
    sinkLogits: inputAt(node, 11) ?? (intAttribute(node, 'smooth_softmax') === 1 ? zeros(editor, numHeads) : undefined),
    state: origin ?? stateOf(editor, node, past),
    ...(bias && { visibility: { value: bias, kind: 'additive' as const, isCausalBesides: true } }),
  } as FoundAttention
}

function zeros(editor: GraphEditor, count: number): string {
  return editor.floats(new Array<number>(count).fill(0))
}

function refuseSettings(editor: GraphEditor, node: OnnxNode): void {
  if ((intAttribute(node, 'causal') ?? 1) !== 1) throw refuse(node, 'it is not causal')
  for (const name of ['k_quant_type', 'v_quant_type']) {
    const type = textAttribute(node, name) ?? 'NONE'
    if (type !== 'NONE') throw refuse(node, `its cache is quantized (${name} ${type})`)
  }
  refuseInputs(node, { 12: 'scales of a quantized cache', 13: 'scales of a quantized cache' })
  refuseOutput(editor, node, 3, 'its scores')
}

interface Inputs {
  readonly before: readonly OnnxNode[]
  readonly query: ReturnType<typeof flat>
  readonly key: ReturnType<typeof flat>
  readonly value: ReturnType<typeof flat>
  readonly headDim: number
  readonly rotary?: GraphRotation | undefined
}

interface Sizes {
  readonly numHeads: number
  readonly numKvHeads: number
}

function separate(editor: GraphEditor, node: OnnxNode, { numHeads }: Sizes): Inputs {
  const [query, key, value] = node.input as [string, string, string]
  const headDim = lastSize(editor, node, query) / numHeads
  const own = ownRotation(editor, node)
  // A rotation node in front is ours to do only when nothing else is rotated here.
  const front = own ? undefined : rotationInFront(editor, query, key)
  const rows = { query: flat(front?.query ?? query), key: flat(front?.key ?? key), value: flat(value) }
  return { before: [], ...rows, headDim, rotary: own ?? front?.rotary }
}

/** Query, key and value heads one after the other in one projection. */
function packed(editor: GraphEditor, node: OnnxNode, { numHeads, numKvHeads }: Sizes): Inputs {
  const [query] = node.input as [string]
  const headDim = lastSize(editor, node, query) / (numHeads + 2 * numKvHeads)
  if (!Number.isInteger(headDim)) throw refuse(node, `its packed input does not split into ${numHeads} heads`)
  const sizes = [numHeads, numKvHeads, numKvHeads].map((heads) => heads * headDim)
  const split = editor.node('Split', [query, editor.integers(sizes)], { attributes: { axis: { int: -1 } } })
  const [q, k, v] = [split.output[0]!, editor.fresh('key'), editor.fresh('value')]
  split.output.push(k, v)
  const rows = { query: flat(q), key: flat(k), value: flat(v) }
  return { before: [split], ...rows, headDim, rotary: ownRotation(editor, node) }
}

function ownRotation(editor: GraphEditor, node: OnnxNode): GraphRotation | undefined {
  if (intAttribute(node, 'do_rotary') !== 1) return undefined
  const [cos, sin] = [inputAt(node, 7), inputAt(node, 8)]
  if (!cos || !sin) throw refuse(node, 'do_rotary without tables of cosines and sines')
  const positions = inputAt(node, 9)
  if (positions && positions !== 'position_ids' && !isStepPositions(editor, positions)) {
    throw refuse(node, `expected the graph's position_ids as positions, got "${positions}"`)
  }
  return { cos, sin, isInterleaved: intAttribute(node, 'rotary_interleaved') === 1 }
}

/** The graph's position_ids, but for reshapes and casts. */
function isStepPositions(editor: GraphEditor, name: string): boolean {
  const node = editor.producer(name)
  if (!node) return name === 'position_ids'
  return ['Reshape', 'Cast', 'Identity'].includes(node.opType ?? '') && isStepPositions(editor, node.input[0] ?? '')
}

/** RMS norms of each head, which come before rotation. */
function withNorms(editor: GraphEditor, node: OnnxNode, inputs: Inputs, { numHeads, numKvHeads }: Sizes): Inputs {
  const epsilon = floatAttribute(node, 'qk_norm_epsilon') ?? 1e-6
  const before = [...inputs.before]
  const norm = (name: string, heads: number, weight: string | undefined): string => {
    if (!weight) return name
    const split = editor.node('Reshape', [name, editor.integers([0, -1, heads, inputs.headDim])])
    const attributes = { axis: { int: -1 }, epsilon: { float: epsilon } }
    const normed = editor.node('SimplifiedLayerNormalization', [split.output[0]!, weight], { attributes })
    before.push(split, normed)
    return normed.output[0]!
  }
  const query = flat(norm(inputs.query.name, numHeads, inputAt(node, 14)))
  const key = flat(norm(inputs.key.name, numKvHeads, inputAt(node, 15)))
  return { ...inputs, before, query, key }
}

/** The state of another attention, where its present is what this one reads and there are no keys of its own. */
function sharedState(editor: GraphEditor, node: OnnxNode, past: string | undefined): string | undefined {
  const origin = past ? editor.producer(past) : undefined
  if (!past || !origin || !isGroupQuery(origin) || origin.output[1] !== past) return undefined
  const own = editor.fact(inputAt(node, 1) ?? '').dims?.[1]
  if (own && own.c === 0 && own.t === 0 && own.p === 0) return stateOf(editor, origin, inputAt(origin, 3))
  throw refuse(node, 'it adds keys to the cache of another attention')
}

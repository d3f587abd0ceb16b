/**
 * What is known of the results of If, Loop and Scan: their bodies are looked through with what is known around them.
 * Values that go from one turn to the next are known as far as a turn leaves them as they were.
 */
import type { OnnxGraph, OnnxNode } from '../schema.ts'
import { intAttribute, intsAttribute } from './attributes.ts'
import type { Fact, Facts } from './facts.ts'
import { constant, type Dim, same } from './linear.ts'
import { axisOf } from './operators-shape.ts'

/** Facts of a body's outputs, in order, for facts of its inputs. */
type LookThrough = (body: OnnxGraph, inputs: readonly Fact[]) => Promise<readonly Fact[]>

/** Facts of a node's outputs; undefined for operators that have no body of a known meaning. */
export async function subgraphFacts(
  node: OnnxNode,
  inputs: readonly Fact[],
  look: LookThrough,
): Promise<readonly Fact[] | undefined> {
  const body = (name: string) => node.attribute.find((attribute) => attribute.name === name)?.g
  const [then, other, turn] = [body('then_branch'), body('else_branch'), body('body')]
  if (node.opType === 'If' && then && other) {
    const [a, b] = [await look(then, []), await look(other, [])]
    return a.map((fact, i) => common(fact, b[i] ?? {}))
  }
  if (node.opType === 'Loop' && turn) return loopFacts(turn, inputs, look)
  if (node.opType === 'Scan' && turn) return scanFacts(node, turn, inputs, look)
  return undefined
}

async function loopFacts(body: OnnxGraph, inputs: readonly Fact[], look: LookThrough): Promise<readonly Fact[]> {
  const [count, condition, ...initial] = inputs
  const turn = async (states: readonly Fact[]) => (await look(body, [{}, {}, ...states])).slice(1)
  const { states, rows } = await settled(initial, turn)
  const [going, next] = [body.input[1]?.name, body.output[0]?.name]
  const goesOn = body.node.some(
    ({ opType, input, output }) => opType === 'Identity' && input[0] === going && output[0] === next,
  )
  const turns = goesOn && (!condition || isPlain(condition)) ? count?.ints?.[0] : undefined
  return [...states, ...rows.map(({ type, dims }) => ({ type, dims: dims && [turns, ...dims] }))]
}

/** Absent, or the same in every step. */
function isPlain({ type, isConstant }: Fact): boolean {
  return type === undefined || isConstant === true
}

async function scanFacts(
  node: OnnxNode,
  body: OnnxGraph,
  inputs: readonly Fact[],
  look: LookThrough,
): Promise<readonly Fact[]> {
  const given = intAttribute(node, 'num_scan_inputs') ?? 0
  const [initial, sequences] = [inputs.slice(0, inputs.length - given), inputs.slice(inputs.length - given)]
  const axes = intsAttribute(node, 'scan_input_axes')
  const axisIn = ({ dims }: Fact, i: number): number => axisOf(axes?.[i] ?? 0, dims?.length ?? 0)
  const parts = sequences.map((fact, i) => ({
    type: fact.type,
    dims: fact.dims?.filter((_, at) => at !== axisIn(fact, i)),
  }))
  const { states, rows } = await settled(initial, (now) => look(body, [...now, ...parts]))
  const [first = {}] = sequences
  const turns = first.dims?.[axisIn(first, 0)]
  const axesOut = intsAttribute(node, 'scan_output_axes')
  const joined = rows.map(({ type, dims }, i) => {
    return { type, dims: dims?.toSpliced(axisOf(axesOut?.[i] ?? 0, dims.length + 1), 0, turns) }
  })
  return [...states, ...joined]
}

/** What goes from turn to turn, without what a turn changes; and what each turn gives besides. */
async function settled(initial: readonly Fact[], turn: (states: readonly Fact[]) => Promise<readonly Fact[]>) {
  const split = (facts: readonly Fact[]) => [facts.slice(0, initial.length), facts.slice(initial.length)] as const
  let states: readonly Fact[] = initial.map(({ type, dims }) => ({ type, dims }))
  // What one turn changes may change another state in the next. Each time less is known, so this ends.
  for (;;) {
    const [after, rows] = split(await turn(states))
    const rest = states.map((fact, i) => common(fact, after[i] ?? {}))
    if (rest.every((fact, i) => isSame(fact, states[i] as Fact))) return { states, rows }
    states = rest
  }
}

function isSame(a: Fact, b: Fact): boolean {
  if (a.type !== b.type || a.dims?.length !== b.dims?.length) return false
  return a.dims?.every((dim, i) => (dim === undefined ? b.dims?.[i] === undefined : same(dim, b.dims?.[i]))) ?? true
}

/** What is true of both. */
function common(a: Fact, b: Fact): Fact {
  const isSameRank = a.dims !== undefined && a.dims.length === b.dims?.length
  const dims = isSameRank ? a.dims?.map((dim, i): Dim => (same(dim, b.dims?.[i]) ? dim : undefined)) : undefined
  return { type: a.type ?? b.type, dims }
}

/** The facts of a body's inputs: what is given, and where that says nothing, what the body declares in numbers. */
export function bodyInputs({ input }: OnnxGraph, given: readonly Fact[]): Facts {
  const facts = input.map(({ name = '', type }, i) => {
    const { elemType, shape } = type?.tensorType ?? {}
    const { type: known = elemType === undefined ? undefined : Number(elemType), dims } = given[i] ?? {}
    const isNumbers = shape?.dim.every(({ dimValue }) => dimValue !== undefined)
    const declared = isNumbers ? shape?.dim.map(({ dimValue }) => constant(Number(dimValue))) : undefined
    return [name, { type: known, dims: dims ?? declared }] as const
  })
  return new Map(facts)
}

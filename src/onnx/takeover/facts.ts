/** What is known of a graph's values before it runs: element type, shape, and the contents of small integer tensors. */
import { readNumbers } from '../constants.ts'
import { valuesRead, valuesWritten } from '../graph-walk.ts'
import { dataTypes, type OnnxGraph, type OnnxNode, type OnnxTensor, type OnnxValueInfo } from '../schema.ts'
import { allTokens, constant, type Dim, newTokens, pastTokens } from './linear.ts'
import { operators } from './operators.ts'
import { bodyInputs, subgraphFacts } from './subgraphs.ts'

export interface Fact {
  /** TensorProto.DataType; undefined: not known. */
  readonly type?: number | undefined
  /** Undefined: not even the rank is known. */
  readonly dims?: readonly Dim[] | undefined
  /** Contents of an integer tensor of rank 0 or 1. */
  readonly ints?: readonly Dim[] | undefined
  /** Nothing in it changes from step to step. */
  readonly isConstant?: boolean | undefined
}

export type Facts = ReadonlyMap<string, Fact>

/** Longer ones are data, not shapes. */
const longestShape = 64

const integerTypes: ReadonlySet<number> = new Set([dataTypes.int32, dataTypes.int64, dataTypes.bool])

/** Infers facts for all values of a graph, in order; operators that are not known leave their outputs unknown. */
export async function inferFacts(graph: OnnxGraph): Promise<Map<string, Fact>> {
  const facts = new Map<string, Fact>()
  for (const info of graph.input) facts.set(info.name ?? '', inputFact(info))
  await inferNodes(graph, facts)
  return facts
}

/** @param facts those of inputs and of what surrounds the graph; the others are added */
async function inferNodes(graph: OnnxGraph, facts: Map<string, Fact>): Promise<void> {
  const declared = new Map(graph.valueInfo.map(({ name, type }) => [name, type?.tensorType?.elemType]))
  for (const tensor of graph.initializer) facts.set(tensor.name ?? '', await tensorFact(tensor))
  for (const node of graph.node) {
    const inferred = await inferNode(node, facts)
    // What a subgraph reads counts as what the node itself reads.
    const isConstant = valuesRead(node).every((name) => facts.get(name)?.isConstant)
    for (const name of valuesWritten(node)) {
      const fact = { isConstant, ...inferred[node.output.indexOf(name)] }
      const type = declared.get(name)
      const isDeclared = fact.type === undefined && type !== undefined
      facts.set(name, isDeclared ? { ...fact, type: Number(type) } : fact)
    }
  }
}

/** Facts of a node's outputs, as far as there are any. */
async function inferNode(node: OnnxNode, facts: Facts): Promise<readonly Fact[]> {
  const tensor = node.opType === 'Constant' ? node.attribute.find(({ name }) => name === 'value')?.t : undefined
  if (tensor) return [await tensorFact(tensor)]
  const inputs = node.input.map((name) => facts.get(name) ?? {})
  const known = operators[node.opType ?? '']
  if (known) return known.infer(node, inputs)
  const look = async (body: OnnxGraph, given: readonly Fact[]): Promise<readonly Fact[]> => {
    const inner = new Map([...facts, ...bodyInputs(body, given)])
    await inferNodes(body, inner)
    return body.output.map(({ name = '', type }) => {
      const declaredType = type?.tensorType?.elemType
      const fact = inner.get(name) ?? {}
      return { ...fact, type: fact.type ?? (declaredType === undefined ? undefined : Number(declaredType)) }
    })
  }
  return (await subgraphFacts(node, inputs, look)) ?? []
}

async function tensorFact(tensor: OnnxTensor): Promise<Fact> {
  const type = Number(tensor.dataType)
  const dims = tensor.dims.map((dim) => constant(Number(dim)))
  const length = tensor.dims.reduce<number>((count, dim) => count * Number(dim), 1)
  const isShape = integerTypes.has(type) && dims.length <= 1 && length <= longestShape
  const ints = isShape ? Array.from((await readNumbers(tensor)).values, constant) : undefined
  return { type, dims, ints, isConstant: true }
}

/** Inputs of a decoder by their published names: batch is 1, T tokens are new, P were before. */
function inputFact({ name = '', type }: OnnxValueInfo): Fact {
  const elemType = type?.tensorType?.elemType
  const isState = name.includes('past')
  const declared = type?.tensorType?.shape?.dim.map(({ dimValue, dimParam }): Dim => {
    if (dimValue !== undefined) return constant(Number(dimValue))
    return isState ? stateDim(dimParam ?? '') : undefined
  })
  return { type: elemType === undefined ? undefined : Number(elemType), dims: stepDims(name, declared) }
}

function stepDims(name: string, declared: readonly Dim[] | undefined): readonly Dim[] | undefined {
  const one = constant(1)
  if (name === 'input_ids' || name === 'position_ids') return [one, newTokens]
  if (name === 'attention_mask') return [one, allTokens]
  if (/^past_key_values\.\d+\.(key|value)$/.test(name) && declared?.length === 4) {
    return [one, declared[1], pastTokens, declared[3]]
  }
  return declared
}

/** An axis of a state, by the name that exporters give it. */
function stateDim(name: string): Dim {
  if (/^(batch|batch_size|B|N)$/i.test(name)) return constant(1)
  return /past|length|seq|total|cache/i.test(name) ? pastTokens : undefined
}

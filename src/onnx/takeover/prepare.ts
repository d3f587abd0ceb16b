/** Makes a published graph one that patterns can look at: its operator sets are known, its inputs are those of a step. */
import { KvasirError } from '../../tensor/error.ts'
import { valueInfo } from '../builder.ts'
import { make } from '../codec.ts'
import { valuesWritten } from '../graph-walk.ts'
import { dataTypes, type OnnxGraph, type OnnxModel, type OnnxNode, type OnnxTensor } from '../schema.ts'

/** Operator sets that ONNX Runtime 1.30 runs and whose operators have the forms that are read here. */
const operatorSets: Readonly<Record<string, readonly [number, number]>> = {
  '': [13, 25],
  'ai.onnx': [13, 25],
  'com.microsoft': [1, 1],
}

/** Operator sets whose graphs are those of the first known one, but for these operators: their forms changed with it. */
const olderSets = [11, 12]
const changed = new Set('Dropout Hardmax LogSoftmax ReduceSum Softmax Split Squeeze Unsqueeze'.split(' '))

/** Inputs that are settings, and what they are set to: logits of all tokens. */
const settings: Readonly<Record<string, number>> = { num_logits_to_keep: 0, logits_to_keep: 0 }

/** @throws KvasirError `unsupported` for other operator sets or functions */
export function prepare(original: OnnxModel): OnnxModel {
  const model = raised(original)
  for (const { domain = '', version } of model.opsetImport) {
    const range = operatorSets[domain]
    const isUsed = model.graph!.node.some((node) => (node.domain ?? '') === domain)
    if (!range && !isUsed) continue // exporters list more than they use
    if (range && Number(version) >= range[0] && Number(version) <= range[1]) continue
    const expected = range ? `version ${range[0]} to ${range[1]} of operator set "${domain}"` : 'known operator sets'
    throw new KvasirError(
      'unsupported',
      'onnx',
      `expected ${expected}, got "${domain}" ${version ?? 'without version'}`,
    )
  }
  if (model.functions.length > 0) {
    throw new KvasirError('unsupported', 'onnx', `expected no functions in the model, got ${model.functions.length}`)
  }
  return { ...model, graph: withFlatPositions(withoutSettings(withPast(model.graph!))) }
}

function raised(model: OnnxModel): OnnxModel {
  if (model.graph!.node.some(({ opType = '', domain }) => !domain && changed.has(opType))) return model
  const opsetImport = model.opsetImport.map((set) =>
    !set.domain && olderSets.includes(Number(set.version)) ? { ...set, version: operatorSets['']![0] } : set,
  )
  return { ...model, opsetImport }
}

/** A merged decoder chooses between two graphs; the one that takes a past computes the same without one. */
function withPast(graph: OnnxGraph): OnnxGraph {
  const choice = graph.node.find(({ opType, input }) => opType === 'If' && input[0] === 'use_cache_branch')
  const branch = choice?.attribute.find(({ name }) => name === 'then_branch')?.g
  if (!choice || !branch) return graph
  const renamed = new Map(branch.output.map(({ name = '' }, i) => [name, choice.output[i] ?? name]))
  const rename = (names: readonly string[]): string[] => names.map((name) => renamed.get(name) ?? name)
  const inner: OnnxNode[] = branch.node.map((node) => ({
    ...node,
    input: rename(node.input),
    output: rename(node.output),
  }))
  const written = new Set(inner.flatMap(valuesWritten))
  // A branch may give on what it did not compute.
  for (const [name, output] of renamed) {
    if (written.has(output)) continue
    inner.push(make('Node', { opType: 'Identity', name: output, input: [name], output: [output] }))
  }
  return {
    ...graph,
    node: graph.node.flatMap((node) => (node === choice ? inner : [node])),
    initializer: [...graph.initializer, ...branch.initializer],
    valueInfo: [...graph.valueInfo, ...branch.valueInfo],
  }
}

/** Positions `[n, B, S]` of models that see images, too (time, height, width): in a text all n are the same. */
function withFlatPositions(graph: OnnxGraph): OnnxGraph {
  const name = 'position_ids'
  const dims = graph.input.find((input) => input.name === name)?.type?.tensorType?.shape?.dim
  const count = Number(dims?.[0]?.dimValue)
  if (dims?.length !== 3 || !(count >= 1)) return graph
  const [wide, all] = [`kvasir.${name}`, `kvasir.${name}.all`]
  const constants = { axes: [0], shape: [count, 1, 1] }
  const initializer = Object.entries(constants).map(([key, values]) => {
    return make('Tensor', {
      name: `${wide}.${key}`,
      dataType: dataTypes.int64,
      dims: [values.length],
      int64Data: values,
    })
  })
  const nodes = [
    make('Node', { opType: 'Unsqueeze', name: wide, input: [name, `${wide}.axes`], output: [wide] }),
    make('Node', { opType: 'Expand', name: all, input: [wide, `${wide}.shape`], output: [all] }),
  ]
  const renamed = graph.node.map((node) => ({
    ...node,
    input: node.input.map((value) => (value === name ? all : value)),
  }))
  return {
    ...graph,
    node: [...nodes, ...renamed],
    initializer: [...graph.initializer, ...initializer],
    input: graph.input.map((input) => (input.name === name ? valueInfo(name, dataTypes.int64, [1, 'T']) : input)),
  }
}

function withoutSettings(graph: OnnxGraph): OnnxGraph {
  const constants: OnnxTensor[] = []
  const input = graph.input.filter(({ name = '', type }) => {
    if (!Object.hasOwn(settings, name)) return true
    const dims = type?.tensorType?.shape?.dim.map(() => 1) ?? []
    constants.push(make('Tensor', { name, dataType: dataTypes.int64, dims, int64Data: [settings[name]!] }))
    return false
  })
  return { ...graph, input, initializer: [...graph.initializer, ...constants] }
}

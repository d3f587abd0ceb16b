/**
 * Cuts a small graph out of a large one: what computes a mask, from the inputs of a step alone. Integers that follow
 * from the numbers of tokens (shapes of hidden states, above all) are computed from those numbers instead, so that the
 * probe does not need the model around it.
 */
import { createHash } from 'node:crypto'
import { valueInfo } from '../builder.ts'
import { encodeModel, make } from '../codec.ts'
import { initializerBytes } from '../external.ts'
import { valuesRead } from '../graph-walk.ts'
import { dataTypes, type OnnxModel, type OnnxNode, type OnnxTensor } from '../schema.ts'
import type { GraphEditor } from './editor.ts'
import type { Linear } from './linear.ts'
import { isConstant } from './linear.ts'

export interface Probe {
  readonly model: OnnxModel
  /** Inputs of the graph that it reads. */
  readonly inputs: ReadonlySet<string>
  /** Equal for probes that compute the same in the same way. */
  readonly key: string
}

/** More nodes than any mask has. */
const mostNodes = 600
/** Causal masks as buffers `[1, 1, 4096, 4096]` are as large as constants of masks get. */
const mostBytes = 1 << 26

const stepInputs = ['input_ids', 'attention_mask', 'position_ids']

/** Names of the probe's own values. */
export const probeNames = {
  newTokens: 'kvasir.T',
  pastTokens: 'kvasir.P',
  result: 'kvasir.result',
  logits: 'kvasir.logits',
}

/**
 * @param logits a value that is given instead of computed, as the input `kvasir.logits`, f32
 * @returns a model with the output `kvasir.result`, f32; or why there is none
 */
export function extractProbe(editor: GraphEditor, value: string, logits?: string): Probe | string {
  const extraction = new Extraction(editor, logits)
  const failure = extraction.visit(value)
  return failure ?? extraction.finish(value)
}

class Extraction {
  readonly #editor: GraphEditor
  readonly #logits: string | undefined
  readonly #seen = new Set<string>()
  readonly #inputs = new Set<string>()
  readonly #tensors: OnnxTensor[] = []
  readonly #nodes: OnnxNode[] = []
  #bytes = 0

  constructor(editor: GraphEditor, logits: string | undefined) {
    this.#editor = editor
    this.#logits = logits
  }

  /** Takes over what computes a value, its inputs first; returns why it can't. */
  visit(start: string): string | undefined {
    const open: { name: string; isExpanded: boolean }[] = [{ name: start, isExpanded: false }]
    for (let item = open.pop(); item !== undefined; item = open.pop()) {
      const node = this.#editor.producer(item.name)
      if (item.isExpanded) {
        if (node && !this.#nodes.includes(node)) this.#nodes.push(node)
        continue
      }
      if (this.#seen.has(item.name)) continue
      this.#seen.add(item.name)
      const failure = this.#take(item.name)
      if (typeof failure === 'string') return failure
      if (failure || !node) continue
      if (this.#nodes.length > mostNodes) return `it takes more than ${mostNodes} nodes`
      open.push({ ...item, isExpanded: true })
      for (const name of valuesRead(node)) open.push({ name, isExpanded: false })
    }
    return undefined
  }

  /** True when a value needs no node of the graph, false when it does, text when it is out of reach. */
  #take(name: string): boolean | string {
    if (name === this.#logits) return true
    const { ints, dims, type } = this.#editor.fact(name)
    const tensor = this.#editor.initializer(name)
    if (tensor) {
      this.#tensors.push(tensor)
      this.#bytes += initializerBytes(tensor)
      return this.#bytes <= mostBytes || `it reads "${name}", which is too large for a mask`
    }
    const isKnown = ints?.every((dim) => dim !== undefined)
    if (isKnown && dims && type !== undefined) {
      this.#nodes.push(...this.#linear(name, ints as readonly Linear[], dims.length, type))
      return true
    }
    if (!this.#editor.isInput(name)) return false
    this.#inputs.add(name)
    return stepInputs.includes(name) || `it depends on "${name}"`
  }

  /** c + t * T + p * P, element by element. */
  #linear(name: string, ints: readonly Linear[], rank: number, type: number): OnnxNode[] {
    const vector = (part: (dim: Linear) => number, suffix: string): string => {
      const dims = rank === 0 ? [] : [ints.length]
      const tensor = { name: `${name}.${suffix}`, dataType: dataTypes.int64, dims, int64Data: ints.map(part) }
      this.#tensors.push(make('Tensor', tensor))
      return tensor.name
    }
    const node = (opType: string, input: string[], suffix: string, to?: number): string => {
      const attribute = to === undefined ? [] : [make('Attribute', { name: 'to', type: 2, i: to })]
      const output = suffix === '' ? name : `${name}.${suffix}`
      made.push(make('Node', { opType, input, output: [output], name: output, attribute }))
      return output
    }
    const made: OnnxNode[] = []
    const fixed = vector(({ c }) => c, 'c')
    if (ints.every(isConstant)) node('Cast', [fixed], '', type)
    else {
      const fresh = node('Mul', [probeNames.newTokens, vector(({ t }) => t, 't')], 'new')
      const past = node('Mul', [probeNames.pastTokens, vector(({ p }) => p, 'p')], 'past')
      const sum = node('Add', [node('Add', [fresh, past], 'both'), fixed], 'sum')
      node('Cast', [sum], '', type)
    }
    return made
  }

  finish(value: string): Probe {
    const editor = this.#editor
    const nodes: OnnxNode[] = []
    const given = this.#logits
    const inputs = [
      valueInfo(probeNames.newTokens, dataTypes.int64, []),
      valueInfo(probeNames.pastTokens, dataTypes.int64, []),
    ]
    if (given) {
      inputs.push(anyShape(probeNames.logits, dataTypes.float))
      nodes.push(castTo(probeNames.logits, given, editor.fact(given).type ?? dataTypes.float))
    }
    for (const { name = '', type } of editor.model.graph!.input) {
      if (this.#inputs.has(name)) inputs.push(anyShape(name, Number(type?.tensorType?.elemType ?? dataTypes.int64)))
    }
    nodes.push(...this.#nodes, castTo(value, probeNames.result, dataTypes.float))
    const graph = make('Graph', {
      name: 'probe',
      node: nodes,
      input: inputs,
      initializer: this.#tensors,
      output: [make('ValueInfo', { name: probeNames.result })],
    })
    const { opsetImport, irVersion } = editor.model
    const model = make('Model', { irVersion, opsetImport, graph })
    return { model, inputs: new Set(inputs.map(({ name }) => name ?? '')), key: fingerprint(model) }
  }
}

function castTo(input: string, output: string, type: number): OnnxNode {
  const attribute = [make('Attribute', { name: 'to', type: 2, i: type })]
  return make('Node', { opType: 'Cast', name: output, input: [input], output: [output], attribute })
}

function anyShape(name: string, elemType: number) {
  return make('ValueInfo', { name, type: make('Type', { tensorType: make('TensorType', { elemType }) }) })
}

/** A hash in which names of values don't matter, so that equal layers have equal probes. */
function fingerprint(model: OnnxModel): string {
  const { node, initializer, ...graph } = model.graph!
  if (node.some(({ attribute }) => attribute.some(({ g }) => g)))
    return createHash('sha1').update(encodeModel(model)).digest('hex')
  const names = new Map<string, string>([['', '']])
  const rename = (name: string): string => {
    if (!names.has(name)) names.set(name, name.startsWith('kvasir.') ? name : `v${names.size}`)
    return names.get(name)!
  }
  const renamed = node.map((item) => ({
    ...item,
    name: '',
    input: item.input.map(rename),
    output: item.output.map(rename),
    metadataProps: [],
    docString: undefined,
  }))
  const tensors = initializer.map((tensor) => ({ ...tensor, name: rename(tensor.name ?? '') }))
  tensors.sort((a, b) => (a.name < b.name ? -1 : 1))
  const canonical = make('Model', { graph: { ...graph, input: [], node: renamed, initializer: tensors } })
  return createHash('sha1').update(encodeModel(canonical)).digest('hex')
}

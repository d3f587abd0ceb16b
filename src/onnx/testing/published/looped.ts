/**
 * Decoders with recurrent layers whose steps are subgraphs: linear attention that decays, token by token in a `Scan` or
 * a `Loop`, or by an `If` that has a shorter way for single tokens (gated delta nets are exported in these forms).
 */
import { valueInfo } from '../../builder.ts'
import { make } from '../../codec.ts'
import { dataTypes, type OnnxGraph, type OnnxNode, type OnnxValueInfo } from '../../schema.ts'
import { groupQuery } from './fused.ts'
import type { AttentionWriter } from './scaffold.ts'
import { stepLengths } from './steps.ts'
import { type NodeSettings, PublishedWriter } from './writer.ts'

export type LoopKind = 'scan' | 'loop' | 'while' | 'if'

/** `[B, S, hidden]` to `[B, S, H * D]`, by a recurrent layer or, in layers of `attention`, by attention. */
export function loopedAttention(
  w: PublishedWriter,
  kind: LoopKind,
  attentionLayers: readonly number[],
): AttentionWriter {
  const attention = groupQuery(w, { isPacked: true })
  const { layers, numHeads, headDim } = w.settings
  for (let layer = 0; layer < layers; layer++) {
    if (attentionLayers.includes(layer)) continue
    const axes = ['batch_size', numHeads, headDim, headDim]
    w.input(`past_recurrent.${layer}`, w.float, axes)
    w.output(`present_recurrent.${layer}`, w.float, axes)
  }
  return (_, layer, x) => {
    if (attentionLayers.includes(layer)) return attention(w, layer, x)
    const rows = walks[kind](w, layer, projections(w, layer, x))
    return w.node('Reshape', [rows, w.integers([0, 0, numHeads * headDim])])
  }
}

/** Queries, keys, values `[B, S, H, D]` and what is kept of the state `[B, S, H]`. */
type Inputs = readonly [query: string, key: string, value: string, kept: string]

type Walk = (w: PublishedWriter, layer: number, inputs: Inputs) => string

function projections(w: PublishedWriter, layer: number, x: string): Inputs {
  const { numHeads, headDim, hiddenSize } = w.settings
  const name = `model.layers.${layer}.recurrent`
  const split = (part: string): string => {
    const rows = w.linear(x, `${name}.${part}`, hiddenSize, numHeads * headDim)
    return w.node('Reshape', [rows, w.integers([0, 0, numHeads, headDim])])
  }
  const kept = w.node('Sigmoid', [w.linear(x, `${name}.decay`, hiddenSize, numHeads, true)])
  return [split('q'), split('k'), split('v'), kept]
}

const walks = {
  scan: (w, layer, inputs) => scan(w, w, layer, inputs, `present_recurrent.${layer}`),
  loop: (w, layer, inputs) => loop(w, layer, inputs, true),
  while: (w, layer, inputs) => loop(w, layer, inputs, false),
  if: (w, layer, inputs) => {
    const { fresh } = stepLengths(w)
    const isSingle = w.node('Equal', [fresh, w.scalar(1)])
    const name = `layer.${layer}/if`
    const [single, many] = [new Body(w, `${name}/one`), new Body(w, `${name}/many`)]
    const now = inputs.map((input) => single.node('Squeeze', [input, w.integers([1])])) as unknown as Inputs
    const [state, row] = oneToken(w, single, `past_recurrent.${layer}`, now)
    const rows = single.node('Unsqueeze', [row, w.integers([1])])
    const scanned = scan(w, many, layer, inputs, `${name}/many/present`)
    const branch = (body: Body, outputs: readonly [string, string]): OnnxGraph =>
      body.graph([], [rowInfo(w, outputs[0], 'S'), stateInfo(w, outputs[1])])
    w.node('If', [isSingle], [`${name}/rows`, `present_recurrent.${layer}`], {
      attributes: {
        then_branch: { graph: branch(single, [rows, state]) },
        else_branch: { graph: branch(many, [scanned, `${name}/many/present`]) },
      },
    })
    return `${name}/rows`
  },
} as const satisfies Record<LoopKind, Walk>

/** `[B, S, H, D]` by a Loop, which counts its turns or is told after each whether to go on. */
function loop(w: PublishedWriter, layer: number, inputs: Inputs, isCounted: boolean): string {
  const { fresh } = stepLengths(w)
  const name = `layer.${layer}/loop`
  const body = new Body(w, name)
  const now = inputs.map((input) => body.node('Gather', [input, `${name}/i`], undefined, axis(1))) as unknown as Inputs
  const [state, row] = oneToken(w, body, `${name}/state`, now)
  if (isCounted) body.node('Identity', [`${name}/go`], `${name}/go on`)
  else body.node('Less', [body.node('Add', [`${name}/i`, w.scalar(1)]), fresh], `${name}/go on`)
  const graph = body.graph(
    [
      valueInfo(`${name}/i`, dataTypes.int64, []),
      valueInfo(`${name}/go`, dataTypes.bool, []),
      stateInfo(w, `${name}/state`),
    ],
    [valueInfo(`${name}/go on`, dataTypes.bool, []), stateInfo(w, state), rowInfo(w, row)],
  )
  const outputs = [`present_recurrent.${layer}`, `${name}/rows`]
  w.node('Loop', [isCounted ? fresh : '', w.bools('true', [true], []), `past_recurrent.${layer}`], outputs, {
    attributes: { body: { graph } },
  })
  return w.node('Transpose', [`${name}/rows`], undefined, { attributes: { perm: { ints: [1, 0, 2, 3] } } })
}

/** `[B, S, H, D]` by a Scan, written into `target`. */
function scan(
  w: PublishedWriter,
  target: Pick<PublishedWriter, 'node'>,
  layer: number,
  inputs: Inputs,
  present: string,
): string {
  const { numHeads, headDim } = w.settings
  const name = `layer.${layer}/scan`
  const body = new Body(w, name)
  const now: Inputs = [`${name}/q`, `${name}/k`, `${name}/v`, `${name}/kept`]
  const [state, row] = oneToken(w, body, `${name}/state`, now)
  const given = now.map((value, i) => valueInfo(value, w.float, i < 3 ? [1, numHeads, headDim] : [1, numHeads]))
  const graph = body.graph([stateInfo(w, `${name}/state`), ...given], [stateInfo(w, state), rowInfo(w, row)])
  target.node('Scan', [`past_recurrent.${layer}`, ...inputs], [present, `${name}/rows`], {
    attributes: {
      body: { graph },
      num_scan_inputs: { int: 4 },
      scan_input_axes: { ints: [1, 1, 1, 1] },
      scan_output_axes: { ints: [1] },
    },
  })
  return `${name}/rows`
}

/** The next state and the row of one token, `[B, H, D]`. */
function oneToken(w: PublishedWriter, body: Body, past: string, [q, k, v, kept]: Inputs): readonly [string, string] {
  const wide = (value: string, axes: readonly number[]): string => body.node('Unsqueeze', [value, w.integers(axes)])
  const added = body.node('Mul', [wide(k, [3]), wide(v, [2])])
  const state = body.node('Add', [body.node('Mul', [past, wide(kept, [2, 3])]), added])
  const row = body.node('MatMul', [wide(q, [2]), state])
  return [state, body.node('Squeeze', [row, w.integers([2])])]
}

const axis = (index: number): NodeSettings => ({ attributes: { axis: { int: index } } })

function stateInfo(w: PublishedWriter, name: string): OnnxValueInfo {
  const { numHeads, headDim } = w.settings
  return valueInfo(name, w.float, [1, numHeads, headDim, headDim])
}

function rowInfo(w: PublishedWriter, name: string, length?: string): OnnxValueInfo {
  const { numHeads, headDim } = w.settings
  const sizes = [1, ...(length === undefined ? [] : [length]), numHeads, headDim]
  return valueInfo(name, w.float, sizes)
}

/** Nodes of a subgraph, whose names are its own; constants lie in the graph around it. */
class Body {
  readonly #writer: PublishedWriter
  readonly #name: string
  #count = 0

  constructor({ settings }: PublishedWriter, name: string) {
    this.#writer = new PublishedWriter(settings)
    this.#name = name
  }

  node(opType: string, inputs: readonly string[], name?: string | readonly string[], settings?: NodeSettings): string {
    return this.#writer.node(opType, inputs, name ?? `${this.#name}/${opType}_${this.#count++}`, settings)
  }

  graph(input: OnnxValueInfo[], output: OnnxValueInfo[]): OnnxGraph {
    return make('Graph', { name: this.#name, node: this.#writer.nodes as OnnxNode[], input, output })
  }
}

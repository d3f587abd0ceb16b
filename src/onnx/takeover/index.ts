/**
 * Takes over a published decoder: attention nodes of any known form become kvasir.Attention nodes, and what only fed
 * attention (masks, lengths, positions, tables of cosines and sines) is dropped. See docs/onnx.md.
 */
import { isKvasirError, KvasirError, reasonOf } from '../../tensor/error.ts'
import type { GraphState } from '../architectures/contract.ts'
import { producersOf } from '../graph-walk.ts'
import type { OnnxGraph, OnnxModel } from '../schema.ts'
import type { FoundAttention, OpenGraph, Refused } from './contract.ts'
import { GraphEditor } from './editor.ts'
import { inferFacts } from './facts.ts'
import { type Finished, finishGraph } from './finish.ts'
import { patterns } from './patterns/index.ts'
import { placeAttention } from './place.ts'
import { stepPositions } from './positions.ts'
import { prepare } from './prepare.ts'
import { refuse } from './refuse.ts'
import { liveGraph, statePairs } from './states.ts'
import { type GraphTable, readTable } from './tables.ts'
import { withTextLength } from './text-length.ts'
import { VisibilityLearner } from './visibility.ts'

export type { OpenGraph } from './contract.ts'
export type { GraphTable } from './tables.ts'

export interface TakeOverOptions {
  /** Runs small parts of the graph, to learn what its masks mean. */
  readonly openGraph: OpenGraph
  /** How far the model goes, from config.json. */
  readonly maxPositions: number
}

export interface TakenOver extends Finished {
  /** For each `rotary` of the attention nodes but `none`. */
  readonly tables: ReadonlyMap<string, GraphTable>
  /** For each attention node, in order: the form that it had. */
  readonly kinds: readonly string[]
  /** What stays in ONNX Runtime's hands although it is attention, and why. */
  readonly warnings: readonly string[]
}

/**
 * @throws KvasirError `unsupported` naming the node that can't be taken over and why, `invalid-file` for graphs that
 * are not in order
 */
export async function takeOver(original: OnnxModel, options: TakeOverOptions): Promise<TakenOver> {
  const model = prepare(original)
  producersOf(model.graph!) // in order and without cycles
  const logits = logitsOf(model.graph!)
  const pairs = statePairs(model.graph!)
  const editor = new GraphEditor(model, await inferFacts(model.graph!))
  const refusals = new Refusals()
  const found = await findAll(editor, refusals.add)
  const { tables, placed } = await placeAll(editor, found, options, refusals.add)
  if (placed.length === 0) throw refusals.first ?? noAttention()
  try {
    const replaced = editor.finish()
    const live = { ...replaced, graph: { ...replaced.graph!, node: liveGraph(replaced.graph!, logits, pairs).nodes } }
    const stepped = await withTextLength(await stepPositions(live, options))
    const finished = await finishGraph(stepped, logits, pairs)
    const warnings = refusals.warnings(finished.ends.alone?.states ?? [])
    return { ...finished, tables, kinds: placed.map(({ kind }) => kind), warnings }
  } catch (error) {
    // What is wrong with the rest is mostly that an attention is still in it.
    throw isRefusal(error) ? (refusals.first ?? error) : error
  }
}

function isRefusal(error: unknown): error is KvasirError {
  return isKvasirError(error) && error.code === 'unsupported'
}

/** Nodes that stay as they are. */
class Refusals {
  readonly #errors: KvasirError[] = []

  readonly add: Refused = (error) => {
    if (!isRefusal(error)) throw error
    this.#errors.push(error)
  }

  get first(): KvasirError | undefined {
    return this.#errors[0]
  }

  warnings(states: readonly GraphState[]): string[] {
    const growing = states.filter(({ grows }) => grows).map(({ past }) => past)
    if (growing.length === 0) return []
    const reasons = this.#errors.map(reasonOf)
    const why = reasons.length ? reasons : ['no attention of a known form reads it']
    return [`ONNX Runtime keeps ${growing.join(', ')}, which no policy and no window bounds`, ...why]
  }
}

function logitsOf({ output }: OnnxGraph): string {
  if (output.some(({ name }) => name === 'logits')) return 'logits'
  const names = output.map(({ name }) => `"${name}"`).slice(0, 5)
  throw new KvasirError('unsupported', 'onnx', `expected an output "logits", got ${names.join(', ')}`)
}

function noAttention(): KvasirError {
  const message = 'expected a decoder with a key and value cache, found no attention in it'
  return new KvasirError('unsupported', 'onnx', message)
}

async function findAll(editor: GraphEditor, refused: Refused): Promise<FoundAttention[]> {
  const found: FoundAttention[] = []
  for (const pattern of Object.values(patterns)) found.push(...(await pattern.find(editor, refused)))
  const order = new Map(editor.nodes.map((node, i) => [node, i]))
  return found.sort((a, b) => order.get(a.anchor)! - order.get(b.anchor)!)
}

interface Placed {
  readonly tables: ReadonlyMap<string, GraphTable>
  readonly placed: readonly FoundAttention[]
}

async function placeAll(
  editor: GraphEditor,
  found: readonly FoundAttention[],
  options: TakeOverOptions,
  refused: Refused,
): Promise<Placed> {
  const learner = new VisibilityLearner(editor, options)
  const tables = new Map<string, GraphTable>()
  const owners = new Map<string, number>()
  const placed: FoundAttention[] = []
  for (const attention of found) {
    try {
      const layer = placed.length
      const origin = originOf(attention, owners)
      const rotary = await tableKey(editor, attention, tables)
      const rule = await learner.learn(attention)
      const shares = origin === undefined ? {} : { sharesKeyValueWith: origin }
      placeAttention(editor, attention, { layer, rule, rotary, ...shares })
      if (origin === undefined) owners.set(attention.state, layer)
      placed.push(attention)
    } catch (error) {
      refused(error)
    }
  }
  return { tables, placed }
}

/** The layer whose keys and values are read; undefined: this one has its own. */
function originOf({ anchor, state, sharesStateOf }: FoundAttention, owners: ReadonlyMap<string, number>) {
  if (sharesStateOf === undefined && owners.has(state)) throw refuse(anchor, `the cache "${state}" has another owner`)
  const origin = sharesStateOf === undefined ? undefined : owners.get(sharesStateOf)
  if (sharesStateOf === undefined || origin !== undefined) return origin
  throw refuse(anchor, `it reads the cache "${sharesStateOf}" before that is written`)
}

/** The name of the tables that an attention rotates with; they are read once. */
async function tableKey(editor: GraphEditor, attention: FoundAttention, tables: Map<string, GraphTable>) {
  const { rotary } = attention
  if (!rotary) return 'none'
  const key = `${rotary.cos}${rotary.isInterleaved ? ', interleaved' : ''}`
  if (!tables.has(key)) tables.set(key, await readTable(editor, attention))
  return key
}

/**
 * Fits a scorer to what a model attends to in a text. Three readings: of the training texts, for samples; of some of
 * them again, for the slopes; of texts that were held out, to see what it is worth beside scores that need no training.
 */
import type { CacheShape } from '../../src/cache/contract.ts'
import type { Kernels } from '../../src/kernels/index.ts'
import type { KeyRotation } from '../../src/policies/scorer/features.ts'
import type { ScorerLayer, ScorerLayers } from '../../src/policies/scorer/scorer.ts'
import type { CausalLM } from '../../src/runtime/contract.ts'
import type { Passage } from '../passages.ts'
import { fitHidden } from './fit-hidden.ts'
import { fitLinear } from './fit-linear.ts'
import { type Fitted, scoreOf } from './fitted.ts'
import { chooseForgetting, type Scored } from './forgetting.ts'
import { looksOf } from './judge.ts'
import { type HeadView, observe, sequenceOf } from './observe.ts'
import { Samples } from './samples.ts'
import { type Judgement, Tally } from './tally.ts'

export interface TrainOptions {
  readonly training: readonly Passage[]
  readonly heldOut: readonly Passage[]
  /** Hidden units; 0: linear. */
  readonly hidden: number
  readonly seed: number
  /** Of tokens removed, for slopes and judgement. */
  readonly shares: readonly number[]
  readonly signal?: AbortSignal
  /** @param tokens read so far, of all three readings */
  readonly onProgress?: (tokens: number, total: number, what: string) => void
}

export interface Trained {
  readonly layers: ScorerLayers
  /** The last tokens that a cache with this score should keep in any case, as far as a quarter of W allows. */
  readonly recent: number
  readonly judgement: Judgement
  /** Samples of one head. */
  readonly samples: number
}

/** Samples of all heads, in bytes. */
const samplesBytes = 256 * 2 ** 20
const epochs = 12
/** Texts that are enough to choose slopes by. */
const slopeTexts = 4

interface Head {
  readonly samples: Samples
  readonly rotation: KeyRotation
  fitted?: Fitted
  readonly scored: Scored[]
  slope: number
}

/** @throws KvasirError `invalid-argument` for too little text, `aborted` when the signal fires */
export async function trainScorer(model: CausalLM, kernels: Kernels, options: TrainOptions): Promise<Trained> {
  const { training, heldOut, hidden, seed, shares } = options
  const again = training.slice(0, slopeTexts)
  const read = createReader(model, kernels, options, [training, again, heldOut])
  const heads = new Map<string, Head>()
  const numHeads = model.shape.layers.reduce((sum, { numKvHeads, window }) => sum + (window ? 0 : numKvHeads), 0)
  await read(training, 'collecting', (view) => headOf(heads, view, numHeads).samples.add(view))
  for (const head of heads.values()) {
    head.fitted = hidden > 0 ? fitHidden(head.samples, { hidden, epochs, seed }) : fitLinear(head.samples)
  }
  await read(again, 'choosing slopes', (view) => {
    const head = heads.get(keyOf(view)) as Head
    const scores = fittedScores(head.fitted as Fitted, view)
    head.scored.push({ scores, looks: looksOf(view), contextTokens: view.contextTokens })
  })
  const all = [...heads.values()]
  const { recent, slopes } = chooseForgetting(
    all.map(({ scored }) => scored),
    shares,
  )
  for (const [n, head] of all.entries()) head.slope = slopes[n] as number
  const tally = new Tally(shares, recent)
  await read(heldOut, 'judging', (view) => {
    const { fitted, slope } = heads.get(keyOf(view)) as Head
    tally.add(
      view,
      fittedScores(fitted as Fitted, view).map((score, token) => score + slope * token),
    )
  })
  const samples = Math.min(...Array.from(heads.values(), (head) => head.samples.count))
  return { layers: assemble(model.shape, heads, hidden), recent, judgement: tally.judgement(), samples }
}

/** Reads several lists of texts one after the other, telling how far it has come. */
function createReader(
  model: CausalLM,
  kernels: Kernels,
  options: TrainOptions,
  lists: readonly (readonly Passage[])[],
) {
  const { signal, onProgress } = options
  const total = lists.flat().reduce((sum, passage) => sum + sequenceOf(passage).length, 0)
  let done = 0
  return async (passages: readonly Passage[], what: string, visit: (view: HeadView) => void): Promise<void> => {
    for (const passage of passages) {
      const onPrefill = (tokens: number): void => onProgress?.(done + tokens, total, what)
      await observe(model, kernels, passage, visit, { signal, onPrefill })
      done += sequenceOf(passage).length
    }
  }
}

const keyOf = ({ layer, head }: HeadView): string => `${layer}.${head}`

function headOf(heads: Map<string, Head>, view: HeadView, numHeads: number): Head {
  const known = heads.get(keyOf(view))
  if (known) return known
  const { numFeatures, rotation } = view
  const capacity = Math.max(4 * numFeatures, Math.floor(samplesBytes / numHeads / (4 * numFeatures)))
  const head: Head = { samples: new Samples(numFeatures, capacity), rotation, scored: [], slope: 0 }
  heads.set(keyOf(view), head)
  return head
}

function fittedScores(fitted: Fitted, { numTokens, numFeatures, features }: HeadView): Float64Array {
  const row = new Float32Array(numFeatures)
  return Float64Array.from({ length: numTokens }, (_, token) => {
    features(token, row)
    return scoreOf(fitted, row)
  })
}

function assemble({ layers }: CacheShape, heads: ReadonlyMap<string, Head>, hidden: number): ScorerLayers {
  return layers.map(({ numKvHeads, window }, layer): ScorerLayer | undefined => {
    if (window !== undefined) return undefined
    const own = Array.from({ length: numKvHeads }, (_, head) => heads.get(`${layer}.${head}`) as Head)
    const all = (field: 'weight' | 'bias' | 'output'): Float32Array => {
      return Float32Array.from(own.flatMap(({ fitted }) => [...(fitted as Fitted)[field]]))
    }
    const numbers = { weight: all('weight'), bias: all('bias'), output: all('output') }
    return {
      rotation: (own[0] as Head).rotation,
      hidden,
      ...numbers,
      slope: Float32Array.from(own, ({ slope }) => slope),
    }
  })
}

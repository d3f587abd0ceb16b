/**
 * Learns from a mask what it means: which keys a query sees, and what is added for their distance. The part of the
 * graph that computes it is run on small steps (all tokens present, P before, T new) and on a long one, and must agree
 * with a rule in every number: causal, causal within a window, or ALiBi. Anything else is refused. However an
 * exporter has written its mask, the same numbers mean the same rule.
 */
import { alibiSlopes } from '../../positions/index.ts'
import { dataTypes } from '../schema.ts'
import type { FoundAttention, Numbers, OpenGraph, Visibility } from './contract.ts'
import type { GraphEditor } from './editor.ts'
import { exchanged, type Row, slopesOf } from './logit-rows.ts'
import { extractProbe, type Probe, probeNames } from './probe.ts'
import { refuse } from './refuse.ts'

/** The rule of one attention. */
export interface Rule {
  /** Factor of the logits and their soft cap, where they were given as `probabilities`. */
  readonly scale?: number | undefined
  readonly window?: number | undefined
  readonly alibi?: boolean | undefined
}

export interface LearnOptions {
  readonly openGraph: OpenGraph
  /** How far the model goes: a window larger than this has no effect. */
  readonly maxPositions: number
}

type Session = Awaited<ReturnType<OpenGraph>>

/** Remembers what was learned: layers of a model mostly have equal masks. */
export class VisibilityLearner {
  readonly #editor: GraphEditor
  readonly #options: LearnOptions
  readonly #known = new Map<string, Promise<Rule>>()

  constructor(editor: GraphEditor, options: LearnOptions) {
    this.#editor = editor
    this.#options = options
  }

  /** @throws KvasirError `unsupported`, naming the node, when no rule fits */
  async learn(found: FoundAttention): Promise<Rule> {
    const { visibility, anchor, numHeads, softcap } = found
    if (!visibility) return {}
    const probe = extractProbe(this.#editor, visibility.value, visibility.logits)
    if (typeof probe === 'string') throw refuse(anchor, `its mask is out of reach: ${probe}`)
    const key = [probe.key, visibility.kind, numHeads, softcap].join(' ')
    const rule = this.#known.get(key) ?? this.#study(found, visibility, probe)
    this.#known.set(key, rule)
    return rule
  }

  async #study(found: FoundAttention, visibility: Visibility, probe: Probe): Promise<Rule> {
    const session = await this.#options.openGraph(probe.model)
    try {
      const isHalf = this.#editor.fact(visibility.value).type === dataTypes.float16
      return await new Study(found, visibility, probe, session, isHalf).run(this.#options.maxPositions)
    } finally {
      await session.release()
    }
  }
}

interface Step {
  readonly past: number
  readonly fresh: number
}

class Study {
  readonly #found: FoundAttention
  readonly #visibility: Visibility
  readonly #probe: Probe
  readonly #session: Session
  readonly #tolerance: number
  #scale = 1

  constructor(found: FoundAttention, visibility: Visibility, probe: Probe, session: Session, isHalf: boolean) {
    this.#found = found
    this.#visibility = visibility
    this.#probe = probe
    this.#session = session
    this.#tolerance = isHalf ? 2e-2 : 1e-3
  }

  async run(maxPositions: number): Promise<Rule> {
    const { numHeads } = this.#found
    const isProbability = this.#visibility.kind === 'probabilities'
    if (isProbability) this.#scale = await this.#measureScale()
    const slopes = slopesOf(await this.#rows({ past: 15, fresh: 1 }, false), numHeads)
    const isAlibi = slopes.some((slope) => Math.abs(slope) > 1e-6)
    if (isAlibi) this.#checkSlopes(slopes)
    const window = isAlibi ? undefined : await this.#measureWindow(maxPositions)
    const steps: Step[] = [
      { past: 0, fresh: 6 },
      { past: 5, fresh: 1 },
      { past: 4, fresh: 3 },
    ]
    if (window !== undefined && window > 1) steps.push({ past: window - 2, fresh: 5 })
    for (const step of steps) {
      for (const row of await this.#rows(step, isProbability))
        this.#check(row, window, isAlibi ? slopes : undefined, step)
    }
    return { ...(isProbability && { scale: this.#scale }), window, ...(isAlibi && { alibi: true }) }
  }

  /** Factor of the logits, from the odds of two keys whose logits differ by little. */
  async #measureScale(): Promise<number> {
    let scale = 1
    for (let round = 0; round < 4; round++) {
      const difference = Math.min(1 / scale, 1e4)
      const softcap = this.#found.softcap ?? Number.POSITIVE_INFINITY
      const x = Math.min(difference, softcap === Number.POSITIVE_INFINITY ? difference : (softcap / scale) * 0.05)
      const [now, before] = await this.#odds(x)
      const measured = Math.log(now / before)
      const logit = softcap === Number.POSITIVE_INFINITY ? measured : softcap * Math.atanh(measured / softcap)
      if (!(logit > 0 && logit < 80)) throw refuse(this.#found.anchor, 'its logits are not scaled by a factor above 0')
      scale = logit / x
    }
    return scale
  }

  /** Probabilities of the newest and of the oldest of two keys, whose logits are x and 0. */
  async #odds(x: number): Promise<readonly [number, number]> {
    const { numHeads } = this.#found
    const logits = Float32Array.from({ length: 2 * numHeads }, (_, i) => (i % 2) * x)
    const [a, b] = (await this.#run({ past: 1, fresh: 1 }, logits)).values as unknown as [number, number]
    const [c, d] = (await this.#run({ past: 1, fresh: 1 }, new Float32Array(2 * numHeads)))
      .values as unknown as number[]
    return [b * (c as number), a * (d as number)]
  }

  /** Keys that a query far from the beginning sees; undefined when all. */
  async #measureWindow(maxPositions: number): Promise<number | undefined> {
    const tries = [maxPositions - 1, 8191, 1023, 127].filter((past) => past < maxPositions)
    for (const past of tries) {
      const visible = await this.#countVisible(past).catch(() => undefined) // buffers of masks end somewhere
      if (visible !== undefined) return visible === past + 1 ? undefined : visible
    }
    throw refuse(this.#found.anchor, 'its mask does not run on steps of any length')
  }

  /** Keys that the query at position `past` sees, of the head that sees most. */
  async #countVisible(past: number): Promise<number> {
    const keys = past + 1
    const { values } = await this.#run({ past, fresh: 1 }, new Float32Array(this.#found.numHeads * keys))
    const counts = new Array<number>(Math.ceil(values.length / keys)).fill(0)
    for (let i = 0; i < values.length; i++) {
      if (this.#added(values[i] as number, 0) > Number.NEGATIVE_INFINITY) counts[Math.floor(i / keys)]! += 1
    }
    return Math.max(...counts)
  }

  #check(
    { head, position, added }: Row,
    window: number | undefined,
    slopes: readonly number[] | undefined,
    step: Step,
  ) {
    for (const [key, value] of added.entries()) {
      if (key > position && this.#visibility.isCausalBesides) continue
      const isVisible = key <= position && key > position - (window ?? Number.POSITIVE_INFINITY)
      const expected = isVisible ? -(slopes?.[head] ?? 0) * (position - key) : Number.NEGATIVE_INFINITY
      const isEqual = value === expected || Math.abs(value - expected) <= this.#tolerance
      if (isEqual) continue
      const what = window === undefined ? 'a causal mask' : `a causal mask within a window of ${window}`
      const place = `key ${key} at query ${position}, head ${head}, ${step.past} + ${step.fresh} tokens`
      throw refuse(this.#found.anchor, `expected ${what}, got ${value} added instead of ${expected} (${place})`)
    }
  }

  #checkSlopes(slopes: readonly number[]): void {
    const expected = alibiSlopes(slopes.length)
    if (slopes.every((slope, h) => Math.abs(slope - expected[h]!) <= 1e-3 * expected[h]!)) return
    throw refuse(
      this.#found.anchor,
      `its mask adds to the logits what is not ALiBi (slopes ${slopes.slice(0, 4).join(', ')})`,
    )
  }

  /** What a step adds to the logits, relative to the newest visible key of each query. */
  async #rows(step: Step, isRandom: boolean): Promise<Row[]> {
    const { numHeads, softcap } = this.#found
    const keys = step.past + step.fresh
    const logits = new Float32Array(numHeads * step.fresh * keys)
    if (isRandom) for (const i of logits.keys()) logits[i] = (Math.sin(i * 12.9898) * 6) / this.#scale
    const { dims, values } = await this.#run(step, logits)
    const heads = dims.length < 3 ? 1 : (dims.at(-3) as number)
    const [rows, columns] = [dims.at(-2) ?? 1, dims.at(-1) ?? 1]
    if (columns !== keys || (rows !== step.fresh && rows !== 1) || (heads !== numHeads && heads !== 1)) {
      throw refuse(this.#found.anchor, `expected a mask of ${step.fresh} by ${keys}, got [${dims.join(', ')}]`)
    }
    const all: Row[] = []
    for (let head = 0; head < numHeads; head++) {
      for (let t = 0; t < step.fresh; t++) {
        const start = ((heads === 1 ? 0 : head) * rows + (rows === 1 ? 0 : t)) * columns
        const position = step.past + t
        const added = Array.from({ length: keys }, (_, j) => {
          const logit = this.#scale * logits[(head * step.fresh + t) * keys + j]!
          return this.#added(values[start + j] as number, softcap ? softcap * Math.tanh(logit / softcap) : logit)
        })
        const base = added[position] as number
        all.push({
          head,
          position,
          added: added.map((value) => value - (base === Number.NEGATIVE_INFINITY ? 0 : base)),
        })
      }
      if (heads === 1 && this.#visibility.kind !== 'probabilities') break
    }
    return all
  }

  #added(value: number, logit: number): number {
    if (this.#visibility.kind === 'boolean') return value ? 0 : Number.NEGATIVE_INFINITY
    if (this.#visibility.kind === 'additive') return value < -1e3 ? Number.NEGATIVE_INFINITY : value
    return value < 1e-30 ? Number.NEGATIVE_INFINITY : Math.log(value) - logit
  }

  /** Logits and what comes of them are `[H, T, S]` here, however they lie in the graph. */
  async #run(step: Step, logits: Float32Array): Promise<Numbers> {
    const { numHeads } = this.#found
    if (this.#visibility.layout !== 'tokens') return this.#runAsIs(step, logits)
    const [rows, columns] = [step.fresh, step.past + step.fresh]
    const { values } = await this.#runAsIs(step, exchanged(logits, numHeads, rows, columns))
    return { dims: [numHeads, rows, columns], values: exchanged(values, rows, numHeads, columns) }
  }

  async #runAsIs({ past, fresh }: Step, logits: Float32Array): Promise<Numbers> {
    const { numHeads } = this.#found
    const keys = past + fresh
    const layouts = {
      heads: [1, numHeads, fresh, keys],
      'heads without batch': [numHeads, fresh, keys],
      tokens: [1, fresh * numHeads, keys],
    }
    const all: Record<string, Numbers> = {
      [probeNames.newTokens]: { dims: [], values: [fresh] },
      [probeNames.pastTokens]: { dims: [], values: [past] },
      [probeNames.logits]: { dims: layouts[this.#visibility.layout ?? 'heads'], values: logits },
      input_ids: { dims: [1, fresh], values: new Float32Array(fresh) },
      attention_mask: { dims: [1, past + fresh], values: new Float32Array(past + fresh).fill(1) },
      position_ids: { dims: [1, fresh], values: Float32Array.from({ length: fresh }, (_, t) => past + t) },
    }
    const feeds = Object.fromEntries(Object.entries(all).filter(([name]) => this.#probe.inputs.has(name)))
    return (await this.#session.run(feeds))[probeNames.result] as Numbers
  }
}

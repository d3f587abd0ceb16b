/** Scores beside each other over held-out texts: means over heads and texts, and over the texts for each head. */
import { recentOf, windowOf } from './forgetting.ts'
import { attentionAfter, keptMass, type Look, looksOf, plainScores, rankCorrelation, ranking } from './judge.ts'
import type { HeadView } from './observe.ts'

/** One score. */
export interface ScoreQuality {
  readonly score: string
  /** Spearman's, of score and attention to come; null for scores that are the same everywhere. */
  readonly rankCorrelation: number | null
  /** `[shares]`: share of later attention that goes to what is kept then. */
  readonly keptMass: readonly number[]
}

export interface Judgement {
  readonly shares: readonly number[]
  /** The last tokens that stay with all scores alike, at most a quarter of the window. */
  readonly recent: number
  readonly scores: readonly ScoreQuality[]
  /** What `learned` and the others keep in each head, over all shares. */
  readonly heads: readonly {
    readonly layer: number
    readonly head: number
    readonly keptMass: Readonly<Record<string, number>>
  }[]
}

interface Entry {
  readonly layer: number
  readonly head: number
  readonly score: string
  readonly correlation: number
  readonly kept: readonly number[]
}

export class Tally {
  readonly #shares: readonly number[]
  readonly #recent: number
  readonly #entries: Entry[] = []

  /** @param recent of all scores alike: the last tokens that stay in any case */
  constructor(shares: readonly number[], recent: number) {
    this.#shares = shares
    this.#recent = recent
  }

  /** @param learned scores of all tokens by this head */
  add(view: HeadView, learned: ArrayLike<number>): void {
    const looks = looksOf(view)
    if (looks.length === 0) return
    const { layer, head, contextTokens } = view
    const attention = attentionAfter(view)
    const scores = new Map<string, ArrayLike<number>>([['learned', learned], ...plainScores(view)])
    for (const [score, values] of scores) {
      const kept = this.#kept(looks, contextTokens, () => values)
      const correlation = rankCorrelation(
        Array.from(attention, (_, token) => values[token] as number),
        attention,
      )
      this.#entries.push({ layer, head, score, correlation, kept })
    }
    const known = this.#kept(looks, contextTokens, (look) => look.attention, 0)
    this.#entries.push({ layer, head, score: 'oracle', correlation: 1, kept: known })
  }

  /** `[shares]` */
  #kept(
    looks: readonly Look[],
    contextTokens: number,
    scoresFor: (look: Look) => ArrayLike<number>,
    recent = this.#recent,
  ) {
    const sums = this.#shares.map(() => 0)
    for (const look of looks) {
      const order = ranking(scoresFor(look), look.end)
      for (const [s, share] of this.#shares.entries()) {
        const window = windowOf(share, contextTokens)
        sums[s]! += keptMass(order, look, window, recentOf(recent, window)) / looks.length
      }
    }
    return sums
  }

  judgement(): Judgement {
    const names = [...new Set(this.#entries.map(({ score }) => score))]
    const heads = new Map<string, Entry[]>()
    for (const entry of this.#entries) {
      const key = `${entry.layer}.${entry.head}`
      heads.set(key, [...(heads.get(key) ?? []), entry])
    }
    return {
      shares: this.#shares,
      recent: this.#recent,
      scores: names.map((score) => this.#quality(score)),
      heads: Array.from(heads.values(), (entries) => {
        const { layer, head } = entries[0] as Entry
        const kept = names.map((name) => [
          name,
          mean(entries.filter(({ score }) => score === name).flatMap((entry) => entry.kept)),
        ])
        return { layer, head, keptMass: Object.fromEntries(kept) }
      }),
    }
  }

  #quality(name: string): ScoreQuality {
    const own = this.#entries.filter(({ score }) => score === name)
    const known = own.map(({ correlation }) => correlation).filter((value) => !Number.isNaN(value))
    return {
      score: name,
      rankCorrelation: known.length > 0 ? mean(known) : null,
      keptMass: this.#shares.map((_, s) => mean(own.map(({ kept }) => kept[s] as number))),
    }
  }
}

function mean(values: readonly number[]): number {
  return values.reduce((a, b) => a + b, 0) / values.length
}

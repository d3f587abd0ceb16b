/** The scores of the papers, each written down as its formula: from rows and the attention that they got. */
import { randomScores } from '../random.ts'
import type { NaiveRules } from './naive-rules.ts'
import { sum } from './naive-selection.ts'
import { dot, type NaiveToken, norm } from './naive-token.ts'

/** A score of a token by itself. */
export function staticScore(
  name: string,
  token: NaiveToken,
  head: number,
  sizes: { layer: number; numKvHeads: number; seed: number },
): number {
  if (name === 'importance') return token.bias
  if (name === 'value-norm') return Math.fround(norm(token.value))
  if (name === 'key-norm') return Math.fround(-norm(token.key))
  if (name !== 'random') return 0
  // A lot has no definition but its generator: what is checked is who stays.
  const scores = new Float32Array(sizes.numKvHeads)
  const nothing = new Float32Array(0)
  randomScores(sizes.seed)(
    { ...sizes, numTokens: 1, headDim: 0, valueDim: 0, key: nothing, value: nothing, firstPosition: token.position },
    scores,
  )
  return scores[head] as number
}

/** One layer when it is ranked: for each head its rows by position, and what can be asked about them. */
export interface NaiveView {
  readonly heads: readonly NaiveToken[][]
  readonly numHeads: number
  readonly seen: number
  readonly rules: NaiveRules
  /** Keys of a head as attention reads them. */
  keys(head: number): Float64Array[]
  values(head: number): Float64Array[]
  /** Attention of the last `count` queries. */
  recentMass(count: number): number[][]
  /** Queries of a query head, of the sample. */
  sample(head: number): Float64Array[]
  /** A query as it would stand at each of the next 512 positions, on average. */
  ahead(query: Float64Array): Float64Array
}

/** How many of the last queries a ranking looks back at: these have positions, however few rows are kept. */
export function lookbackOf({ score, recent, leastWindow }: NaiveRules): number {
  if (score === 'snapkv') return Math.max(1, recent)
  return score === 'tova' || leastWindow === undefined ? 1 : 16
}

/** Every n-th query but for the first four, n the least power of two that makes 64 or less of them. */
export function sampleOf<Q>(queries: readonly Q[]): Q[] {
  const open = queries.slice(4)
  let stride = 1
  while (Math.ceil(open.length / stride) > 64) stride *= 2
  return open.filter((_, n) => n % stride === 0)
}

export const rescores: Record<string, (view: NaiveView) => number[][]> = {
  h2o: ({ heads }) => heads.map((tokens) => tokens.map(({ mass }) => mass)),
  tova({ heads, numHeads, recentMass }) {
    const masses = recentMass(1)
    const of = (position: number) => {
      return sum(
        heads.flatMap((tokens, k) => tokens.map((token, n) => (token.position === position ? masses[k]![n]! : 0))),
      )
    }
    return heads.map((tokens) => tokens.map(({ position }) => of(position) / numHeads))
  },
  snapkv({ heads, numHeads, rules, recentMass, seen }) {
    const observed = Math.max(1, rules.recent)
    const perQuery = Math.min(observed, seen) * (numHeads / heads.length)
    return recentMass(observed).map((masses) => {
      const shares = masses.map((mass) => mass / perQuery)
      const open = shares.slice(0, Math.max(0, shares.length - rules.recent))
      return shares.map((share, n) => {
        return n < open.length ? sum([-2, -1, 0, 1, 2].map((offset) => open[n + offset] ?? 0)) / 5 : share
      })
    })
  },
  keydiff({ heads, keys }) {
    return heads.map((_, k) => {
      const unit = keys(k).map((key) => key.map((value) => value / norm(key)))
      const anchor = (unit[0] as Float64Array).map((_, d) => sum(unit.map((key) => key[d] as number)) / unit.length)
      return unit.map((key) => -dot(key, anchor) / norm(anchor))
    })
  },
  lagkv({ heads, seen, rules, keys, values }) {
    const lag = Math.max(1, Math.min(128, Math.floor((rules.window - rules.sinks) / 4)))
    const complete = Math.floor((seen - rules.sinks) / lag)
    return heads.map((tokens, k) => {
      const number = ({ position }: NaiveToken) => Math.floor((position - rules.sinks) / lag)
      const vectors = [keys(k), values(k)]
      return tokens.map((token) => {
        if (token.score < 1) return token.score
        const own = tokens.filter((other) => number(other) === number(token))
        const next = tokens.filter((other) => number(other) === number(token) + 1)
        if (number(token) < 0 || number(token) + 1 >= complete || next.length === 0) return 1
        const shares = vectors.map((rows) => {
          const of = (some: NaiveToken[]) => some.map((one) => rows[tokens.indexOf(one)] as Float64Array)
          return spreads(of(own), of(next))
        })
        const raw = own.map((_, n) => ((shares[0]![n] as number) + (shares[1]![n] as number)) / 2)
        const me = own.indexOf(token)
        const mine = raw[me] as number
        return raw.filter((value, n) => value < mine || (value === mine && n < me)).length / own.length
      })
    })
  },
  'expected-attention'({ heads, numHeads, rules, keys, values, sample, ahead }) {
    const group = numHeads / heads.length
    return heads.map((tokens, k) => {
      const expected = Array.from({ length: group }, (_, g) => {
        const queries = sample(k * group + g).map(ahead)
        const logits = keys(k).map((key) => {
          const dots = queries.map((query) => dot(query, key))
          const mean = sum(dots) / dots.length
          const variance = sum(dots.map((value) => (value - mean) ** 2)) / dots.length
          return mean / Math.sqrt(key.length) + variance / (2 * key.length)
        })
        const powers = logits.map((logit, n) => (n < rules.sinks ? 0 : Math.exp(logit)))
        return queries.length > 0 ? powers.map((power) => power / sum(powers)) : powers.map(() => 1)
      })
      const norms = values(k).map(norm)
      return tokens.map((_, n) => (sum(expected.map((shares) => shares[n] as number)) / group) * (norms[n] as number))
    })
  },
}

/** LagKV: softmax over a partition of its tokens' deviations, channels scaled by their range in the next partition. */
function spreads(own: Float64Array[], next: Float64Array[]): number[] {
  const powers = own.map((row) => {
    const scaled = Array.from(row, (value, d) => {
      const column = next.map((other) => other[d] as number)
      const [low, high] = [Math.min(...column), Math.max(...column)]
      return high > low ? (value - low) / (high - low) : 0
    })
    const mean = sum(scaled) / scaled.length
    return Math.exp(Math.sqrt(sum(scaled.map((value) => (value - mean) ** 2)) / (scaled.length - 1)))
  })
  return powers.map((power) => power / sum(powers))
}

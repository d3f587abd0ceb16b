/** What docs/caches.md says of each policy, as numbers: what is protected, how often rows are ranked, how heads share. */
import type { CacheOptions } from '../../cache/contract.ts'

export interface NaiveRules {
  /** Infinity: everything stays. */
  readonly window: number
  readonly sinks: number
  readonly recent: number
  /** Rows are ranked when a head has more than W, down to W - interval + 1; 0: at every token, of all tokens so far. */
  readonly interval: number
  /** Name of the score: that of a policy, or `importance`, `value-norm`, `recency`. */
  readonly score: string
  /** Tokens of importance -Infinity never come in. */
  readonly passesOver: boolean
  /** Heads are ranked on different steps where they share nothing. */
  readonly isByHead: boolean
  /** Heads share their budget. */
  readonly isShared: boolean
  readonly leastWindow: number | undefined
  readonly keepMass: number
  /** Everything stays, and each query sees the W best. */
  readonly masks: boolean
}

const base = { sinks: 0, recent: 0, interval: 0, passesOver: false, isByHead: false, isShared: false, masks: false }

/** @param window W of the layer */
export function rulesOf(options: CacheOptions, window = Number.POSITIVE_INFINITY): NaiveRules {
  const { policy, importance = 'model', leastWindow, keepMass = 0.95 } = options
  const name = /([a-z0-9-]+)\)*$/.exec(policy)?.[1] as string
  const isShared = policy.includes('adakv')
  const own = usual(name === 'adakv' || name === 'pyramidkv' ? 'snapkv' : name, importance as string, window)
  const isRanked = own.interval > 0 || isShared || leastWindow !== undefined
  const rules = {
    ...base,
    ...own,
    isShared,
    leastWindow,
    keepMass,
    window,
    masks: name === 'full' && window < Infinity,
  }
  const { sinks = rules.sinks, recent = rules.recent } = options
  const interval = options.interval ?? (rules.interval || upTo(128, window / 8))
  const spared = Math.max(1, Math.min(interval, window - sinks - recent))
  return {
    ...{ ...rules, sinks, recent, interval: isRanked ? spared : 0 },
    passesOver: isRanked || (rules.score === 'importance' && name !== 'full'),
  }
}

function usual(
  name: string,
  importance: string,
  window: number,
): Partial<NaiveRules> & { score: string; interval: number } {
  const often = upTo(32, window / 32)
  const nowAndThen = upTo(128, window / 8)
  switch (name) {
    case 'full':
      return { score: 'importance', interval: 0 }
    case 'window':
      return { score: 'recency', interval: 0 }
    case 'streaming':
      return { score: 'recency', interval: 0, sinks: 4 }
    case 'linear':
      return { score: importance === 'model' ? 'importance' : importance, interval: 0 }
    case 'h2o':
      return { score: name, interval: often, recent: Math.floor(window / 2) }
    case 'tova':
      return { score: name, interval: often, recent: 1 }
    case 'snapkv':
      return { score: name, interval: nowAndThen, recent: upTo(64, window / 4) }
    case 'lagkv':
      return { score: name, interval: nowAndThen, sinks: 4, isByHead: true }
    case 'expected-attention':
      return { score: name, interval: upTo(512, window / 4), sinks: 4, isByHead: true }
    case 'keydiff':
      return { score: name, interval: nowAndThen, isByHead: true }
    default:
      return { score: name, interval: name === 'random' ? 0 : nowAndThen }
  }
}

function upTo(most: number, value: number): number {
  return Math.max(1, Math.min(most, Math.floor(value)))
}

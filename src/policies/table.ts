/** Retention policies by name. One more is one more file and a line here. */
import type { BasePolicyName, CacheOptions, WrapperName } from '../cache/contract.ts'
import type { Retention } from '../cache/retention.ts'
import { cacheDefaults } from './defaults.ts'
import { expectedAttention } from './expected-attention.ts'
import { h2o } from './h2o.ts'
import { importanceOf, recentOf } from './importance.ts'
import { keydiff } from './keydiff.ts'
import { lagkv } from './lagkv.ts'
import { randomScores } from './random.ts'
import { snapkv } from './snapkv.ts'
import { tova } from './tova.ts'

/** What is decided for all heads alike, from the options and the defaults of the policy. */
export interface Protection {
  /** W */
  readonly window: number
  readonly sinks: number
  readonly recent: number
}

interface Recent {
  readonly tokens: number
  readonly share: number
}

export interface PolicyEntry {
  /** W, or kvBudget, must be given. */
  readonly needsWindow: boolean
  readonly needsImportance: (options: CacheOptions) => boolean
  /** First tokens that stay where the user does not say. */
  readonly sinks: number
  /** Last tokens that stay where the user does not say: so many, but at most `share` of W. */
  readonly recent: Recent | ((options: CacheOptions) => Recent)
  /** Decoding steps between two rankings where the user does not say: so many, but at most `share` of W. */
  readonly interval: { readonly tokens: number; readonly share: number }
  /** Absent: everything stays. */
  readonly retention?: (options: CacheOptions, protection: Protection) => Retention
}

const none = { tokens: 0, share: 1 }
/** As the papers have it, one token a step, where the window is small; ranking more often costs more than attention. */
const often = { tokens: 32, share: 1 / 32 }
const nowAndThen = { tokens: 128, share: 1 / 8 }
const bounded = {
  needsWindow: true,
  needsImportance: () => false,
  sinks: 0,
  recent: none,
  interval: nowAndThen,
} as const

export const basePolicies = {
  full: {
    ...bounded,
    needsWindow: false,
    needsImportance: ({ window }) => window !== undefined,
  },
  window: { ...bounded, retention: () => ({ kind: 'static', rankBy: 'recency' }) },
  streaming: { ...bounded, sinks: 4, retention: () => ({ kind: 'static', rankBy: 'recency' }) },
  linear: {
    ...bounded,
    needsImportance: ({ importance = cacheDefaults.importance }) => importance === 'model',
    recent: recentOf,
    retention: ({ importance }) => importanceOf(importance),
  },
  h2o: { ...bounded, recent: { tokens: Infinity, share: 0.5 }, interval: often, retention: () => h2o },
  tova: { ...bounded, recent: { tokens: 1, share: 1 }, interval: often, retention: () => tova },
  snapkv: {
    ...bounded,
    recent: { tokens: 64, share: 0.25 },
    retention: (_, { recent }) => snapkv(Math.max(1, recent)),
  },
  keydiff: { ...bounded, retention: () => keydiff },
  lagkv: {
    ...bounded,
    sinks: 4,
    // Two partitions wait to be judged: they must fit beside what has been.
    retention: (_, { window, sinks }) => lagkv(Math.max(1, Math.min(128, Math.floor((window - sinks) / 4)))),
  },
  'expected-attention': {
    ...bounded,
    sinks: 4,
    interval: { tokens: 512, share: 0.25 },
    retention: () => expectedAttention,
  },
  random: {
    ...bounded,
    retention: ({ seed = cacheDefaults.seed }) => ({ kind: 'static', rankBy: randomScores(seed) }),
  },
} as const satisfies Record<BasePolicyName, PolicyEntry>

/** How a budget is shared out, over the scores of another policy. */
export const wrappers = {
  /** Heads of a layer share its budget: each has a fifth of the mean for itself, the rest goes to the best of all. */
  adakv: { heads: 'together' },
  /** Layers near the input keep more than those near the output. */
  pyramidkv: { layers: 'pyramid' },
} as const satisfies Record<WrapperName, { readonly heads?: 'together'; readonly layers?: 'pyramid' }>

/** What a wrapper by itself is put around. */
export const wrappedByDefault: BasePolicyName = 'snapkv'

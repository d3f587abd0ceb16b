/** What the bench and the process of a case say to each other. */
import type { CacheCase, Flatness, Steps } from './contract.ts'

export type Request =
  | { readonly kind: 'open'; readonly cacheCase: CacheCase; readonly steps: number; readonly budgetMs: number }
  /** `repeat` rounds that end when so many tokens have come. Lengths ascend from one request to the next. */
  | { readonly kind: 'measure'; readonly tokens: number; readonly repeat: number }
  /** A step after W tokens beside one now. */
  | { readonly kind: 'compare' }

export type Reply =
  | { readonly kind: 'opened'; readonly description: string }
  | {
      readonly kind: 'measured'
      readonly rounds: readonly Steps[]
      readonly bytes: number
      readonly recallRatio: number | null
    }
  | ({ readonly kind: 'compared' } & Flatness)

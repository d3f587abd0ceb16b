/** What the bench and its processes say to each other: one request, one reply. */
import type { OpenOptions } from './candidate.ts'
import type { CandidateName, GenerateTask } from './contract.ts'

export type Task =
  /** Steps are taken until `budgetMs` have passed. */
  | (GenerateTask & { readonly budgetMs: number })
  | {
      readonly kind: 'agree'
      /** Tokens that are read before the first choice. */
      readonly prompt: number
      /** Tokens that are chosen. */
      readonly steps: number
      /** What to go on with instead of its own choices. */
      readonly tokens?: readonly number[]
      /** Where the logits go: f32 `[steps, vocab]`. */
      readonly file: string
    }

/** `reference`: the uncut graph with products in f32. */
export type Visitor = CandidateName | 'reference'

export interface Request {
  readonly candidate: Visitor
  readonly options: OpenOptions
  readonly task: Task
}

interface Facts {
  readonly description: string
  readonly versions: Readonly<Record<string, string>>
  readonly loadMs: number
}

export type Answer =
  | (Facts & { readonly kind: 'measured'; readonly ms: number; readonly peakBytes: number })
  | (Facts & { readonly kind: 'agreed'; readonly tokens: readonly number[] })

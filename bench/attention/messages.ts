/** What the bench and the processes of its contestants say to each other. */
import type { AttentionCase, CandidateName } from './contract.ts'
import type { Measurement, SessionFacts } from './session.ts'

export type Request =
  | {
      readonly kind: 'open'
      readonly candidate: CandidateName
      readonly attentionCase: AttentionCase
      /** The result of the first contestant. */
      readonly file: string
    }
  | { readonly kind: 'measure'; readonly budgetMs: number }

export type Reply = ({ readonly kind: 'opened' } & SessionFacts) | ({ readonly kind: 'measured' } & Measurement)

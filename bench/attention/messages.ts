/** What the bench and the processes of its contestants say to each other. */
import type { KvasirErrorCode } from '../../src/tensor/error.ts'
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

export type Reply =
  | ({ readonly kind: 'opened' } & SessionFacts)
  | ({ readonly kind: 'measured' } & Measurement)
  | { readonly kind: 'skipped'; readonly reason: string }
  | { readonly kind: 'failed'; readonly code: KvasirErrorCode; readonly area: string; readonly message: string }

/** What takes part in the bench: something that computes one case, on tensors that it makes itself (inputs.ts). */
import type { StorageType } from '../../src/kernels/index.ts'
import type { LimitProbe } from '../measure.ts'
import type { AttentionCase } from './contract.ts'

export interface Candidate {
  /** Ours are checked against the f64 reference and say what the machine gives. */
  readonly isOurs: boolean
  /** Types to try for K, V and queries in a case; the fastest is taken. */
  dtypes(attentionCase: AttentionCase): readonly StorageType[]
  /** True, or why it can't take part. */
  supports(attentionCase: AttentionCase): true | string
  open(attentionCase: AttentionCase, dtype: StorageType): Promise<OpenCandidate>
}

export interface OpenCandidate {
  readonly description: string
  /** Packages that take part: `{ 'onnxruntime-node': '1.30.0' }` */
  readonly versions?: Readonly<Record<string, string>>
  run(): Promise<void>
  /** `[T, H, D]` of the last run. */
  output(): Float32Array
  /** Ours. */
  readonly probe?: LimitProbe
  /** The same call without its window, ours and where there is a window. */
  runWithoutWindow?(): Promise<void>
  close(): Promise<void>
}

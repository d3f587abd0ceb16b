/** What is known of an operator. */
import type { OnnxNode } from '../schema.ts'
import type { Fact } from './facts.ts'

export interface Operator {
  readonly infer: (node: OnnxNode, inputs: readonly Fact[]) => readonly Fact[]
  /** Axes along which elements are brought together, other than by rank-preserving arithmetic. */
  readonly mixes?: (node: OnnxNode, inputs: readonly Fact[]) => readonly number[] | 'all' | undefined
}

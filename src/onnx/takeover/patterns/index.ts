/** The ways in which published graphs write attention. One more is one more file and one line here. */
import type { Pattern } from '../contract.ts'
import { contribAttention } from './contrib-attention.ts'
import { groupQuery } from './group-query.ts'
import { multiHead } from './multi-head.ts'
import { standardAttention } from './standard-attention.ts'
import { writtenOut } from './written-out.ts'

export const patterns = {
  groupQuery,
  multiHead,
  contribAttention,
  standardAttention,
  writtenOut,
} as const satisfies Record<string, Pattern>

/** The process of one visit. */
import { serve } from '../serve.ts'
import type { Answer, Request } from './messages.ts'
import { visit } from './visit.ts'

serve<Request, Answer>(
  ({ candidate, options, task }) => visit(candidate, options, task),
  ({ candidate }) => (candidate.startsWith('kvasir') ? candidate : undefined),
)

/** The process of one contestant: opens its case, then times it as often as it is told to. */
import type { Skip } from '../contestant.ts'
import { serve } from '../serve.ts'
import { findCandidate } from './candidates.ts'
import type { Reply, Request } from './messages.ts'
import { openSession, type Session } from './session.ts'

let session: Session | undefined

serve(answer, (request) => {
  const name = request.kind === 'open' ? request.candidate : undefined
  return name && findCandidate(name).isOurs ? name : undefined
})

async function answer(request: Request): Promise<Reply | Skip> {
  if (request.kind === 'measure') {
    if (!session) throw new Error('expected an open case before it is measured')
    return { kind: 'measured', ...(await session.measure(request.budgetMs)) }
  }
  const candidate = findCandidate(request.candidate)
  const supported = candidate.supports(request.attentionCase)
  if (supported !== true) return { kind: 'skipped', reason: supported }
  session = await openSession(request.candidate, candidate, request.attentionCase, request.file)
  return { kind: 'opened', ...session.facts }
}

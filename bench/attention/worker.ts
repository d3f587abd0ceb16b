/** The process of one contestant: opens its case, then times it as often as it is told to. Ends with its parent. */
import { isKvasirError } from '../../src/tensor/error.ts'
import { findCandidate } from './candidates.ts'
import type { Reply, Request } from './messages.ts'
import { openSession, type Session } from './session.ts'

let session: Session | undefined

process.on('message', async (request: Request) => {
  const reply = await answer(request).catch((error) => toFailure(error, request))
  process.send?.(reply)
})
process.on('disconnect', () => process.exit(0))
// Ctrl-C reaches all processes of a terminal; the parent decides.
process.on('SIGINT', () => {})

async function answer(request: Request): Promise<Reply> {
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

/** An error of Kvasir or of ours is one of the bench. What others say (no kernel for this, no memory) leaves them out. */
function toFailure(error: unknown, request: Request): Reply {
  const message = error instanceof Error ? error.message : String(error)
  if (isKvasirError(error)) return { kind: 'failed', code: error.code, area: error.area, message }
  if (request.kind === 'open' && findCandidate(request.candidate).isOurs) {
    return { kind: 'failed', code: 'internal', area: 'bench', message: `${request.candidate}: ${message}` }
  }
  return { kind: 'skipped', reason: (message.split('\n')[0] ?? '').slice(0, 200) }
}

/** The process of one case. */
import type { Skip } from '../contestant.ts'
import { serve } from '../serve.ts'
import type { Reply, Request } from './messages.ts'
import { CacheSession } from './session.ts'

let session: CacheSession | undefined

serve(answer, () => 'kvasir')

async function answer(request: Request): Promise<Reply | Skip> {
  if (request.kind === 'open') {
    session = new CacheSession(request.cacheCase, request)
    return { kind: 'opened', description: session.description }
  }
  if (!session) throw new Error('expected an open case before it is measured')
  if (request.kind === 'compare') return { kind: 'compared', ...session.compare() }
  const reason = session.missingMemory(request.tokens)
  return reason ? { kind: 'skipped', reason } : { kind: 'measured', ...session.measure(request.tokens, request.repeat) }
}

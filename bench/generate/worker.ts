/** The process of one visit. Ends with its parent. */
import { isKvasirError } from '../../src/tensor/error.ts'
import type { Reply, Request } from './messages.ts'
import { visit } from './visit.ts'

process.once('message', async ({ candidate, options, task }: Request) => {
  const reply = await visit(candidate, options, task).catch((error) => toFailure(error, candidate))
  process.send?.(reply)
})
process.on('disconnect', () => process.exit(0))
// Ctrl-C reaches all processes of a terminal; the parent decides.
process.on('SIGINT', () => {})

/** An error of ours is one of the bench. What others say (no memory) leaves them out. */
function toFailure(error: unknown, candidate: string): Reply {
  const message = error instanceof Error ? error.message : String(error)
  if (isKvasirError(error)) return { kind: 'failed', code: error.code, area: error.area, message }
  if (candidate.startsWith('kvasir')) {
    return { kind: 'failed', code: 'internal', area: 'bench', message: `${candidate}: ${message}` }
  }
  return { kind: 'skipped', reason: (message.split('\n')[0] ?? '').slice(0, 200) }
}

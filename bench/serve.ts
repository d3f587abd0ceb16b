/** The other end of `Contestant`: the process that answers. Ends with its parent. */
import { isKvasirError } from '../src/tensor/error.ts'
import type { Failure, Skip } from './contestant.ts'

/** @param ours the name of who asks to be measured, where it is one of ours */
export function serve<Request, Reply>(
  answer: (request: Request) => Promise<Reply | Skip>,
  ours: (request: Request) => string | undefined,
): void {
  process.on('message', async (request: Request) => {
    process.send?.(await answer(request).catch((error) => toFailure(error, ours(request))))
  })
  process.on('disconnect', () => process.exit(0))
  // Ctrl-C reaches all processes of a terminal; the parent decides.
  process.on('SIGINT', () => {})
}

/** An error of Kvasir or of ours is one of the bench. What others say (no kernel for this, no memory) leaves them out. */
function toFailure(error: unknown, ours: string | undefined): Failure | Skip {
  const message = error instanceof Error ? error.message : String(error)
  if (isKvasirError(error)) return { kind: 'failed', code: error.code, area: error.area, message }
  if (ours !== undefined) return { kind: 'failed', code: 'internal', area: 'bench', message: `${ours}: ${message}` }
  return { kind: 'skipped', reason: (message.split('\n')[0] ?? '').slice(0, 200) }
}

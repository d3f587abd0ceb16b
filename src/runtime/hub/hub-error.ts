/** What the hub answers, said in our words. */
import { isKvasirError, KvasirError, type KvasirErrorCode } from '../../tensor/error.ts'

/** Answers that may be others a moment later. */
const passing = new Set([408, 425, 429, 500, 502, 503, 504])

/** An answer of the hub that is no file. */
export class HubStatusError extends Error {
  readonly statusCode: number
  /** What the server asks to wait for, if it does. */
  readonly retryAfterMs: number | undefined

  constructor(response: Response) {
    super(`${response.status} ${response.statusText} from ${response.url}`)
    this.statusCode = response.status
    const seconds = Number(response.headers.get('retry-after') ?? Number.NaN)
    this.retryAfterMs = Number.isFinite(seconds) ? seconds * 1000 : undefined
  }
}

/** Whether another try may succeed: the connection broke, or the server was busy. */
export function isPassing(error: unknown): boolean {
  if (isKvasirError(error) || isMisuse(error) || (error instanceof Error && error.name === 'AbortError')) return false
  const status = statusOf(error)
  return status === undefined ? error instanceof Error : passing.has(status)
}

/** What the library refuses to send: a token of another form. Broken connections are TypeErrors with a cause. */
function isMisuse(error: unknown): boolean {
  return error instanceof TypeError && error.cause === undefined
}

/** Whether the server could not be asked at all. */
export function isUnreachable(error: unknown): boolean {
  return statusOf(error) === undefined && isPassing(error)
}

/** What went wrong with a model as a KvasirError. */
export function explainHubError(error: unknown, model: string, hasToken: boolean): KvasirError {
  if (isKvasirError(error)) return error
  const status = statusOf(error)
  const cause = error
  const reason = error instanceof Error ? reasonOf(error) : String(error)
  const make = (code: KvasirErrorCode, message: string) => new KvasirError(code, 'hub', message, { cause })
  if (error instanceof Error && error.name === 'AbortError')
    return make('aborted', `the download of ${model} was aborted`)
  if (isMisuse(error)) return make('invalid-argument', `can't ask the hub for ${model}: ${reason}`)
  if (status === 401 || status === 403) {
    const advice = hasToken ? 'the token in HF_TOKEN gives no access' : 'set HF_TOKEN'
    return make('denied', `expected access to ${model}, got ${status}: it is private, gated or not there; ${advice}`)
  }
  if (status === 404) return make('not-found', `expected a model ${model}, got none at the hub: ${reason}`)
  if (status !== undefined) return make('unreachable', `expected an answer of the hub about ${model}, got ${reason}`)
  return make('unreachable', `expected to reach the hub for ${model}, got: ${reason}`)
}

function statusOf(error: unknown): number | undefined {
  const status = (error as { statusCode?: unknown } | null)?.statusCode
  return typeof status === 'number' ? status : undefined
}

/** fetch says "fetch failed" and keeps why in the cause. */
function reasonOf({ message, cause }: Error): string {
  const inner = cause instanceof Error && cause.message !== '' ? ` (${cause.message})` : ''
  return `${message}${inner}`.replace(/\s+/g, ' ')
}

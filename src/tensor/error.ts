/**
 * The one error class of Kvasir. Messages say what was expected and what came: `[kvasir:cache] expected ..., got ...`.
 */

const marker = Symbol.for('kvasir.error')

/** What went wrong, in a word that code can branch on. */
export type KvasirErrorCode =
  | 'invalid-argument'
  | 'invalid-file'
  | 'unsupported'
  | 'not-found'
  | 'out-of-memory'
  | 'aborted'
  | 'denied'
  | 'unreachable'
  | 'internal'

/** Every error that Kvasir throws on purpose. `area` is the layer that refused: `cache`, `onnx`, `cli`, ... */
export class KvasirError extends Error {
  readonly code: KvasirErrorCode
  readonly area: string

  constructor(code: KvasirErrorCode, area: string, message: string, options?: { cause?: unknown }) {
    super(`[kvasir:${area}] ${message}`, options)
    this.name = 'KvasirError'
    this.code = code
    this.area = area
    Object.defineProperty(this, marker, { value: true })
  }
}

/** True for a KvasirError of any copy of this package (two copies in one process have two classes). */
export function isKvasirError(value: unknown): value is KvasirError {
  return typeof value === 'object' && value !== null && marker in value
}

/** The message without the layer that it begins with. */
export function reasonOf({ message }: KvasirError): string {
  return message.replace(/^\[kvasir:[^\]]*\] /, '')
}

/** The same error with the file that it is about, where its message doesn't have that; others as they are. */
export function withPath(error: unknown, path: string): unknown {
  if (!isKvasirError(error) || error.message.includes(path)) return error
  return new KvasirError(error.code, error.area, `${path}: ${reasonOf(error)}`, { cause: error })
}

/** An `invalid-argument` error; the commonest one, hence the short form. */
export function invalidArgument(area: string, message: string): KvasirError {
  return new KvasirError('invalid-argument', area, message)
}

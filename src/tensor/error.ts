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

/** An `invalid-argument` error; the commonest one, hence the short form. */
export function invalidArgument(area: string, message: string): KvasirError {
  return new KvasirError('invalid-argument', area, message)
}

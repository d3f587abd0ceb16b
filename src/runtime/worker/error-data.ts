/** Errors as messages: a KvasirError keeps its code, others their name; causes come as text. */
import { isKvasirError, KvasirError, type KvasirErrorCode } from '../../tensor/error.ts'

export interface ErrorData {
  readonly name: string
  readonly message: string
  readonly stack?: string
  readonly code?: KvasirErrorCode
  readonly area?: string
  readonly cause?: ErrorData
}

/** Causes of causes are followed so far. */
const maxDepth = 4

export function toErrorData(error: unknown, depth = 0): ErrorData {
  if (!(error instanceof Error)) return { name: 'Error', message: String(error) }
  return {
    name: error.name,
    message: error.message,
    ...(error.stack !== undefined && { stack: error.stack }),
    ...(isKvasirError(error) && { code: error.code, area: error.area }),
    ...(error.cause !== undefined && depth < maxDepth && { cause: toErrorData(error.cause, depth + 1) }),
  }
}

export function fromErrorData(data: ErrorData): Error {
  const options = data.cause ? { cause: fromErrorData(data.cause) } : undefined
  const prefix = `[kvasir:${data.area}] `
  const error =
    data.code !== undefined && data.area !== undefined
      ? new KvasirError(data.code, data.area, data.message.slice(prefix.length), options)
      : Object.assign(new Error(data.message, options), { name: data.name })
  if (data.stack !== undefined) error.stack = data.stack
  return error
}

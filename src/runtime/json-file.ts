/** JSON files of a model folder that may be absent. */
import { readJson } from '../onnx/index.ts'
import { describe } from '../tensor/check.ts'
import { isKvasirError, KvasirError } from '../tensor/error.ts'

export type Json = Readonly<Record<string, unknown>>

/**
 * The object in `file`; undefined where there is no file. A missing file is fine, a broken one is not.
 * @throws KvasirError `denied` or `invalid-file`
 */
export async function readOptionalJson(file: string): Promise<Json | undefined> {
  const value: unknown = await readJson(file).catch((error: unknown) => {
    if (isKvasirError(error) && error.code === 'not-found') return undefined
    throw error
  })
  if (value === undefined || (typeof value === 'object' && value !== null && !Array.isArray(value)))
    return value as Json | undefined
  throw new KvasirError('invalid-file', 'runtime', `${file}: expected an object, got ${describe(value)}`)
}

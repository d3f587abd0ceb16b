/** JSON files of a model folder that may be absent. */
import { readJson } from '../onnx/index.ts'
import { isKvasirError } from '../tensor/error.ts'

export type Json = Readonly<Record<string, unknown>>

/** The object in `file`; undefined where there is no file. A missing file is fine, a broken one is not. */
export async function readOptionalJson(file: string): Promise<Json | undefined> {
  try {
    const value = await readJson(file)
    return typeof value === 'object' && value !== null ? (value as Json) : undefined
  } catch (error) {
    if (isKvasirError(error) && error.code === 'not-found') return undefined
    throw error
  }
}

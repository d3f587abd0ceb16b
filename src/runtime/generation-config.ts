/** What generation_config.json says of how a model is meant to be sampled. */
import { join } from 'node:path'
import { KvasirError } from '../tensor/error.ts'
import type { GenerationDefaults } from './contract.ts'
import { readOptionalJson } from './json-file.ts'
import { resolveSampling } from './sampling-options.ts'

/**
 * Without `do_sample: true` a model is greedy, whatever temperature the file has, as in transformers. Values that are
 * absent stay absent: nobody's library defaults are taken over.
 * @throws KvasirError `invalid-file` for values that generation does not take
 */
export async function readGenerationDefaults(folder: string): Promise<GenerationDefaults> {
  const file = join(folder, 'generation_config.json')
  const config = (await readOptionalJson(file)) ?? {}
  const isSampling = config.do_sample === true
  const temperature = isSampling ? (config.temperature ?? 1) : undefined
  const shape = isSampling ? { topK: config.top_k, topP: config.top_p, minP: config.min_p } : {}
  const rest = {
    repetitionPenalty: config.repetition_penalty,
    maxNewTokens: config.max_new_tokens,
    minNewTokens: config.min_new_tokens,
  }
  const given = Object.entries({ temperature, ...shape, ...rest }).filter(([, value]) => value != null)
  const defaults = Object.fromEntries(given) as GenerationDefaults
  try {
    resolveSampling(defaults)
    for (const count of [defaults.maxNewTokens, defaults.minNewTokens]) {
      if (count !== undefined && !(Number.isInteger(count) && count >= 0)) throw new RangeError(`got ${count} tokens`)
    }
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : String(cause)
    throw new KvasirError('invalid-file', 'runtime', `${file}: ${reason}`, { cause })
  }
  return defaults
}

/** What generation_config.json says of how a model is meant to be sampled. */
import { join } from 'node:path'
import { KvasirError } from '../tensor/error.ts'
import type { GenerationDefaults } from './contract.ts'
import { readOptionalJson } from './json-file.ts'
import { checkDefaults } from './request.ts'

type Config = Readonly<Record<string, unknown>>

/** Options by the names that transformers has for them. */
const names: Readonly<Record<string, keyof GenerationDefaults>> = {
  repetition_penalty: 'repetitionPenalty',
  max_new_tokens: 'maxNewTokens',
  min_new_tokens: 'minNewTokens',
  length_penalty: 'lengthPenalty',
  early_stopping: 'earlyStopping',
  stop_strings: 'stop',
  prompt_lookup_num_tokens: 'promptLookupTokens',
  max_matching_ngram_size: 'maxMatchingNgram',
}

/** Those that a model has only when it samples. */
const samplingNames: typeof names = { top_k: 'topK', top_p: 'topP', min_p: 'minP' }

/** What changes texts and is not done here, and the value with which it changes nothing (besides null and none). */
const unsupported: Readonly<Record<string, unknown>> = {
  ...{ min_length: 0, num_beams: 1, num_beam_groups: 1, num_return_sequences: 1, diversity_penalty: 0 },
  ...{ no_repeat_ngram_size: 0, encoder_no_repeat_ngram_size: 0, encoder_repetition_penalty: 1, guidance_scale: 1 },
  ...{ penalty_alpha: 0, renormalize_logits: false, token_healing: false, exponential_decay_length_penalty: null },
  ...{ forced_bos_token_id: null, forced_eos_token_id: null, forced_decoder_ids: null, begin_suppress_tokens: null },
  ...{ force_words_ids: null, constraints: null, sequence_bias: null, watermarking_config: null, dola_layers: null },
}

/** The same, of models that sample. */
const unsupportedSampling: typeof unsupported = { typical_p: 1, epsilon_cutoff: 0, eta_cutoff: 0, top_h: null }

/**
 * Without `do_sample: true` a model is greedy, whatever temperature the file has, as in transformers. Values that are
 * absent stay absent: nobody's library defaults are taken over. What the file asks for and is not done is named in a
 * warning.
 * @throws KvasirError `invalid-file` for values that generation does not take
 */
export async function readGenerationDefaults(folder: string, vocabSize?: number): Promise<GenerationDefaults> {
  const file = join(folder, 'generation_config.json')
  const config: Config = (await readOptionalJson(file)) ?? {}
  const isSampling = config.do_sample === true
  warn(file, config, isSampling ? { ...unsupported, ...unsupportedSampling } : unsupported)
  const known = Object.entries(isSampling ? { ...names, ...samplingNames } : names)
  const given = {
    temperature: isSampling ? (config.temperature ?? 1) : undefined,
    ...Object.fromEntries(known.map(([name, option]) => [option, config[name]])),
    badWordsIds: badWords(config),
  }
  const defaults = Object.fromEntries(Object.entries(given).filter(([, value]) => value != null)) as GenerationDefaults
  try {
    checkDefaults(defaults, vocabSize)
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : String(cause)
    throw new KvasirError('invalid-file', 'runtime', `${file}: ${reason}`, { cause })
  }
  return defaults
}

/** Tokens that are suppressed are bad words of one token. */
function badWords({ bad_words_ids: words, suppress_tokens: tokens }: Config): unknown {
  const [lists, ids]: readonly unknown[] = [words ?? [], tokens ?? []]
  if (!Array.isArray(lists)) return lists // which is refused
  if (!Array.isArray(ids)) return ids
  const all: readonly unknown[] = [...lists, ...ids.map((id: unknown) => [id])]
  return all.length > 0 ? all : undefined
}

function warn(file: string, config: Config, neutral: typeof unsupported): void {
  const asked = Object.keys(neutral).filter((name) => {
    const value = config[name]
    return value != null && value !== neutral[name] && !(Array.isArray(value) && value.length === 0)
  })
  if (asked.length === 0) return
  process.emitWarning(`${file} asks for what generation here does not do: ${asked.join(', ')}`, 'KvasirWarning')
}

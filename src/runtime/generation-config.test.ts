import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import { readGenerationDefaults } from './generation-config.ts'

let folder = ''
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'kvasir-config-'))
})
afterEach(() => rm(folder, { recursive: true }))

async function read(config: object) {
  await writeFile(join(folder, 'generation_config.json'), JSON.stringify(config))
  return await readGenerationDefaults(folder, 100)
}

describe('generation_config.json', () => {
  it('sets how a model that samples is sampled', async () => {
    const config = { do_sample: true, temperature: 0.6, top_k: 20, top_p: 0.95, min_p: 0, repetition_penalty: 1.1 }
    expect(await read(config)).toEqual({ temperature: 0.6, topK: 20, topP: 0.95, minP: 0, repetitionPenalty: 1.1 })
    expect(await read({ do_sample: true, max_new_tokens: 500 })).toEqual({ temperature: 1, maxNewTokens: 500 })
  })

  it('leaves a model greedy that does not sample, whatever its temperature', async () => {
    expect(await read({ do_sample: false, temperature: 0.6, top_k: 20 })).toEqual({})
    expect(await read({ temperature: 0.6, min_new_tokens: 2, eos_token_id: 3 })).toEqual({ minNewTokens: 2 })
    await rm(join(folder, 'generation_config.json'))
    expect(await readGenerationDefaults(folder)).toEqual({})
  })

  it('sets whatever else has an option here', async () => {
    const beams = { length_penalty: 0.5, early_stopping: true }
    const lookup = { prompt_lookup_num_tokens: 6, max_matching_ngram_size: 2 }
    const words = { bad_words_ids: [[4, 5]], suppress_tokens: [7, 9], stop_strings: ['###', 'End'] }
    expect(await read({ ...beams, ...lookup, ...words })).toEqual({
      ...{ lengthPenalty: 0.5, earlyStopping: true, promptLookupTokens: 6, maxMatchingNgram: 2 },
      ...{ badWordsIds: [[4, 5], [7], [9]], stop: ['###', 'End'] },
    })
    expect(await read({ suppress_tokens: [], bad_words_ids: null })).toEqual({})
  })

  it('names in one warning what it asks for in vain, and nothing that changes nothing', async () => {
    const warn = vi.spyOn(process, 'emitWarning').mockImplementation(() => undefined)
    const neutral = {
      num_beams: 1,
      no_repeat_ngram_size: 0,
      typical_p: 1,
      begin_suppress_tokens: [],
      guidance_scale: null,
    }
    const usual = {
      bos_token_id: 1,
      pad_token_id: 0,
      max_length: 4096,
      transformers_version: '4.50.0',
      use_cache: true,
    }
    await read({ ...neutral, ...usual })
    await read({ typical_p: 0.5 }) // of sampling, which is off
    expect(warn).not.toHaveBeenCalled()
    await read({ ...usual, do_sample: true, no_repeat_ngram_size: 3, forced_bos_token_id: 5, typical_p: 0.5 })
    expect(warn).toHaveBeenCalledOnce()
    const message = 'generation_config.json asks for what generation here does not do'
    expect(warn.mock.calls[0]![0]).toContain(`${message}: no_repeat_ngram_size, forced_bos_token_id, typical_p`)
    vi.restoreAllMocks()
  })

  it('is refused with values that mean nothing', async () => {
    await expect(read({ do_sample: true, temperature: 'warm' })).rejects.toMatchObject({ code: 'invalid-file' })
    await expect(read({ do_sample: true, top_p: 7 })).rejects.toThrow('for topP, got 7')
    await expect(read({ max_new_tokens: 1.5 })).rejects.toThrow(/for maxNewTokens, got 1.5/)
    await expect(read({ early_stopping: 'soon' })).rejects.toThrow('earlyStopping, got "soon"')
    await expect(read({ stop_strings: [''] })).rejects.toThrow('non-empty strings for stop')
    await expect(read({ bad_words_ids: [[8, 300]] })).rejects.toThrow(/badWordsIds.*got 300/)
    await expect(read({ suppress_tokens: 'all' })).rejects.toThrow('arrays of tokens, none empty, for badWordsIds')
  })
})

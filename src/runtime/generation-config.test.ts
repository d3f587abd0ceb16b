import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { readGenerationDefaults } from './generation-config.ts'

let folder = ''
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'kvasir-config-'))
})
afterEach(() => rm(folder, { recursive: true }))

async function read(config: object) {
  await writeFile(join(folder, 'generation_config.json'), JSON.stringify(config))
  return await readGenerationDefaults(folder)
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

  it('is refused with values that mean nothing', async () => {
    await expect(read({ do_sample: true, temperature: 'warm' })).rejects.toMatchObject({ code: 'invalid-file' })
    await expect(read({ do_sample: true, top_p: 7 })).rejects.toThrow('for topP, got 7')
    await expect(read({ max_new_tokens: 1.5 })).rejects.toThrow('got 1.5 tokens')
  })
})

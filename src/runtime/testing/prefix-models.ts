/** Models of one checkpoint for tests of prefixes that are shared, and what they read and write. */
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll } from 'vitest'
import { writeDogeCheckpoint } from '../../onnx/testing/doge-checkpoint.ts'
import type { CausalLM, LoadOptions } from '../contract.ts'
import { loadModel } from '../load-model.ts'

export const text = Array.from({ length: 200 }, (_, i) => (i * 89 + 7) % 256)
export const written = { maxNewTokens: 8, ignoreEos: true, logprobs: 3 } as const

/** To be called once in a file of tests: models that were opened end with it, and both folders go. */
export function usePrefixModels() {
  let scratch = ''
  let model = ''
  const opened: CausalLM[] = []
  beforeAll(async () => {
    scratch = await mkdtemp(join(tmpdir(), 'kvasir-prefixes-'))
    model = (await writeDogeCheckpoint()).folder
  })
  afterAll(async () => {
    for (const each of opened) await each.dispose()
    for (const folder of [scratch, model]) await rm(folder, { recursive: true })
  })
  return {
    opened,
    scratch: () => scratch,
    model: () => model,
    async load(options: LoadOptions): Promise<CausalLM> {
      const loaded = await loadModel(model, { threads: 1, chunkSize: 32, ...options })
      opened.push(loaded)
      return loaded
    },
  }
}

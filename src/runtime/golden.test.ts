/** The bundled model against logits that an independent PyTorch script wrote (models/kvasir-tiny/golden.json). */
import { readFile } from 'node:fs/promises'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { CausalLM } from './contract.ts'
import { loadModel } from './load-model.ts'

interface Golden {
  readonly ids: readonly number[]
  /** For each of the last three tokens, the twenty best next tokens and their logits. */
  readonly lastThreePositionsTop20: readonly { readonly ids: readonly number[]; readonly logits: readonly number[] }[]
  readonly greedyAnswer: readonly number[]
}

const folder = new URL('../../models/kvasir-tiny/', import.meta.url).pathname
let model: CausalLM
let golden: Readonly<Record<'short' | 'long', Golden>>
beforeAll(async () => {
  model = await loadModel(folder, { threads: 1 })
  golden = JSON.parse(await readFile(`${folder}golden.json`, 'utf8')) as typeof golden
})
afterAll(() => model.dispose())

for (const name of ['short', 'long'] as const) {
  describe(`the ${name} golden text`, () => {
    it('has the logits of PyTorch, whether the window is a cache or a mask', async () => {
      const { ids, lastThreePositionsTop20 } = golden[name]
      const logitsOf = [ids.length - 3, ids.length - 2, ids.length - 1]
      for (const policy of ['linear', 'full'] as const) {
        const cache = model.createCache({ policy, window: model.cacheOptions.window })
        const { data } = await model.forward([{ cache, tokens: ids, logitsOf }])
        for (const [row, best] of lastThreePositionsTop20.entries()) {
          for (const [i, id] of best.ids.entries()) {
            const error = Math.abs((data as Float32Array)[row * model.vocabSize + id]! - best.logits[i]!)
            expect(error <= 2e-3, `${policy}, row ${row}, token ${id}: off by ${error}`).toBe(true)
          }
        }
      }
    })

    it('goes on greedily as PyTorch does', async () => {
      const { ids, greedyAnswer } = golden[name]
      const { tokens } = await model.generate(ids, { maxNewTokens: greedyAnswer.length })
      expect(tokens).toEqual(greedyAnswer.slice(0, tokens.length))
      if (tokens.length < greedyAnswer.length) expect(model.tokenizer.eosTokens).toContain(tokens.at(-1))
    })
  })
}

/** Facts from outside of the window of the bundled model, with and without pages that come back. */
import { expect, it } from 'vitest'
import { loadModel } from '../src/runtime/index.ts'
import { evalRecall } from './recall.ts'

it('a streaming cache finds what it has evicted when pages come back', async () => {
  const correct = async (recall?: number): Promise<number> => {
    const options = {
      policy: 'streaming',
      window: 256,
      worker: false,
      ...(recall !== undefined && { recall }),
    } as const
    const model = await loadModel('models/kvasir-tiny', options)
    const result = await evalRecall(model, { contextTokens: 1024, questions: 4, seed: 1 })
    await model.dispose()
    return result.correct
  }
  expect(await correct()).toBe(0)
  expect(await correct(2)).toBeGreaterThanOrEqual(3)
})

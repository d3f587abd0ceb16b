/** Our own runtime over the exported folder, as `loadModel` gives it. */
import type { CacheOptions } from '../../src/cache/index.ts'
import type { BatchEntry } from '../../src/runtime/contract.ts'
import { loadModel } from '../../src/runtime/load-model.ts'
import { appendTo } from '../fill.ts'
import { type OpenModel, type OpenOptions, randomValues } from './candidate.ts'

/** Tokens that are put into a cache at once. */
const chunk = 1024

/** In the thread of the caller: the layers of its cache are filled by hand. */
export async function openOurs(policy: 'full' | 'window', options: OpenOptions): Promise<OpenModel> {
  const { folder, dtype, threads, window } = options
  const chosen: CacheOptions = policy === 'full' ? { policy } : { policy, window }
  const model = await loadModel(folder, { dtype, threads, ...chosen })
  let cache = model.createCache()
  const { backend } = model.describe()
  return {
    description: `${backend}, K and V in f32, ${policy === 'full' ? 'all kept' : `the last ${window} kept`}`,
    versions: {},
    fill(tokens) {
      cache.dispose()
      cache = model.createCache()
      for (const [index, shape] of model.shape.layers.entries()) appendRandom(cache.layer(index), shape, tokens)
    },
    held: () => cache.seenTokens,
    async feed(tokens) {
      const entry: BatchEntry = { cache, tokens }
      return (await model.forward([entry])).data as Float32Array
    },
  }
}

function appendRandom(
  layer: unknown,
  { numKvHeads, headDim, valueDim }: { numKvHeads: number; headDim: number; valueDim: number },
  tokens: number,
): void {
  const most = Math.min(chunk, tokens)
  const [key, value] = [randomValues(most * numKvHeads * headDim), randomValues(most * numKvHeads * valueDim)]
  for (let done = 0; done < tokens; done += most) {
    const numTokens = Math.min(most, tokens - done)
    appendTo(layer, {
      numTokens,
      key: key.subarray(0, numTokens * numKvHeads * headDim),
      value: value.subarray(0, numTokens * numKvHeads * valueDim),
    })
  }
}

/** Which policies suit a model, from what its attention nodes say. Nothing is measured: `kvasir eval` does that. */
import type { CacheShape } from '../cache/contract.ts'
import type { ModelSpec } from '../onnx/index.ts'
import type { PolicyAdvice } from './contract.ts'

/** Tokens that are kept where the model does not say how many. */
const usualWindow = 2048

/** The first is what `loadModel` takes by itself. */
export function advisePolicies(
  spec: ModelSpec,
  { layers, hasImportance }: CacheShape,
  canMove: boolean,
): PolicyAdvice[] {
  if (hasImportance) {
    const why = 'the model computes what a token is worth, and was trained with a cache that keeps the best of them'
    return [
      { policy: 'linear', ...(spec.window !== undefined && { window: spec.window }), why },
      { policy: 'full', why: 'every token, for comparison; memory grows' },
    ]
  }
  const windows = layers.map(({ window }) => window)
  if (layers.length > 0 && windows.every((window) => window !== undefined)) {
    const most = Math.max(...(windows as number[]))
    return [
      { policy: 'full', why: `no layer sees more than ${most} tokens, so that memory is bounded without a policy` },
    ]
  }
  const full = { policy: 'full', why: 'exact; memory grows with the text' } as const
  const ownSinks = layers.some(({ sinkLogits }) => sinkLogits !== undefined)
  const isFading = layers.some(({ alibiSlopes }) => alibiSlopes !== undefined)
  if (ownSinks || isFading) {
    const reason = ownSinks ? 'the model has sinks of its own' : 'its attention fades with distance'
    return [full, { policy: 'window', window: usualWindow, why: `texts without end in constant memory: ${reason}` }]
  }
  const streaming = 'texts without end in constant memory: the first tokens and the last ones'
  const beyond = canMove ? '; with positions: "rank" also beyond the length that the model was trained with' : ''
  return [
    full,
    { policy: 'streaming', window: usualWindow, why: streaming + beyond },
    {
      policy: 'snapkv',
      window: usualWindow,
      why: 'long prompts with short answers: what the end of the prompt looks at stays',
    },
  ]
}

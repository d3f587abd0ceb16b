/** Our kernels: K and V lie in memory of the backend, as caches keep them; queries and results are plain arrays. */
import { type AttendArgs, type FloatType, rowBytes, type StorageArray } from '../../src/kernels/index.ts'
import { instructionSets, probeNative } from '../../src/kernels/native.ts'
import { rowLength } from '../../src/kernels/storage.ts'
import { probeWasm } from '../../src/kernels/wasm.ts'
import { isQuantized } from '../../src/tensor/quantized-row.ts'
import { LimitProbe, type MeasurableKernels, openMeasurable } from '../measure.ts'
import type { Candidate, OpenCandidate } from './candidate.ts'
import { countWork, numQueries } from './cases.ts'
import type { AttentionCase } from './contract.ts'
import { createInput, fillRows, toFloat32 } from './inputs.ts'

export const native: Candidate = ours(probeNative, (threads) => openMeasurable('native', threads))

/** For comparisons with WebAssembly, whose vectors are short too. */
export const nativeAvx2: Candidate = ours(
  () => {
    const probed = probeNative()
    if (probed !== true) return probed
    return instructionSets().includes('avx2') || 'this processor has no AVX2'
  },
  (threads) => openMeasurable('native', threads, 'avx2'),
)

export const wasm: Candidate = ours(probeWasm, (threads) => openMeasurable('wasm', threads))

function ours(probe: () => true | string, open: (threads: number) => MeasurableKernels): Candidate {
  return {
    isOurs: true,
    dtypes: ({ kvDtype }) => [kvDtype],
    supports: probe,
    open: async (attentionCase) => openOurs(attentionCase, open(attentionCase.threads)),
  }
}

function openOurs(attentionCase: AttentionCase, kernels: MeasurableKernels): OpenCandidate {
  const { heads, headDim, queryDtype, window, phase } = attentionCase
  const query = createInput(numQueries(attentionCase) * heads * headDim, queryDtype, 'query')
  const output = query.slice().fill(0)
  const { memories, views } = storeInputs(attentionCase, kernels)
  const args = attendArgs(attentionCase, views, { query, output })
  const probe = phase === 'memory' ? undefined : new LimitProbe(kernels, countWork(attentionCase).bytes)
  return {
    // Asked after the calls: threads that did not come are known by then.
    get description() {
      return kernels.description
    },
    run: () => kernels.attendAsync(args()),
    output: () => toFloat32(output, queryDtype),
    probe,
    runWithoutWindow: window === null ? undefined : () => kernels.attendAsync({ ...args(), left: undefined }),
    async close() {
      probe?.free()
      for (const memory of memories) memory.free()
    },
  }
}

function storeInputs({ kvHeads, length, headDim, kvDtype }: AttentionCase, kernels: MeasurableKernels) {
  const rows = kvHeads * length
  const memories = [0, 1].map(() => kernels.alloc(rows * rowBytes(headDim, kvDtype)))
  // Taken anew for each call: WebAssembly memory moves when it grows.
  const views = (): StorageArray[] =>
    memories.map((memory) => {
      const all = isQuantized(kvDtype) ? memory.u8 : kvDtype === 'f32' ? memory.f32 : memory.u16
      return all.subarray(0, rows * rowLength(headDim, kvDtype))
    })
  for (const [i, name] of (['key', 'value'] as const).entries()) fillRows(views()[i]!, headDim, kvDtype, name)
  return { memories, views }
}

type Queries = AttendArgs['query']

/** Decode reads a cache, `[K, S, D]`; prefill the tokens as a model gives them, `[N, K, D]`. */
function attendArgs(
  attentionCase: AttentionCase,
  views: () => StorageArray[],
  { query, output }: { query: Queries; output: Queries },
): () => AttendArgs {
  const { phase, heads, kvHeads, headDim, length, window, kvDtype, queryDtype } = attentionCase
  const numTokens = numQueries(attentionCase)
  const lengths = new Int32Array(kvHeads).fill(length)
  // A decode step sees all that is cached: without a window nothing depends on positions.
  const isMasked = phase !== 'decode' || window !== null
  return () => {
    const [keys, values] = views()
    return {
      ...{ query, output, queryStorage: storageName(queryDtype), numTokens, numHeads: heads, numKvHeads: kvHeads },
      ...{ headDim, valueDim: headDim, scale: 1 / Math.sqrt(headDim), firstPosition: length - numTokens },
      ...(isMasked && { right: 0, left: window === null ? undefined : window - 1 }),
      segments: [
        {
          ...{ keys: keys!, values: values!, storage: kvDtype, capacity: length, lengths },
          ...(isMasked && { firstPosition: 0 }),
          layout: phase === 'decode' ? ('head-major' as const) : ('token-major' as const),
        },
      ],
    }
  }
}

/** Only a Uint16Array has to say what it holds. */
function storageName(dtype: FloatType): FloatType | undefined {
  return dtype === 'f32' ? undefined : dtype
}

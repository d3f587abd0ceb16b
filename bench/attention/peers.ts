/** ONNX Runtime's own attention, in Node and as WebAssembly, run as programs run it: tensors in, a tensor out. */
import type { InferenceSession, Tensor, TypedTensor } from 'onnxruntime-common'
import type { FloatType, StorageType } from '../../src/kernels/index.ts'
import { isQuantized } from '../../src/tensor/quantized-row.ts'
import type { Candidate, OpenCandidate } from './candidate.ts'
import { numQueries } from './cases.ts'
import type { AttentionCase } from './contract.ts'
import { createPeerGraph, type Feed, type Operator } from './graphs.ts'
import { toFloat32 } from './inputs.ts'

/** The part of both packages that is used. */
interface Runtime {
  readonly InferenceSession: { create(model: Uint8Array, options: object): Promise<InferenceSession> }
  readonly Tensor: new (type: Feed['type'], data: Feed['data'], dims: readonly number[]) => Tensor
}

interface RuntimeEntry {
  /** Bytes of tensors and scores above which a case is left out. */
  readonly maxBytes: number
  load(threads: number): Promise<{ runtime: Runtime; name: string; version: string }>
}

const runtimes = {
  node: {
    maxBytes: 3 * 2 ** 30,
    async load() {
      const runtime = await import('onnxruntime-node')
      return { runtime: runtime as unknown as Runtime, name: 'onnxruntime-node', version: runtime.env.versions.node! }
    },
  },
  web: {
    // WebAssembly has 4 GiB, and inputs are copied into it.
    maxBytes: 1.25 * 2 ** 30,
    async load(threads) {
      const runtime = await import('onnxruntime-web')
      runtime.env.wasm.numThreads = threads
      return { runtime: runtime as unknown as Runtime, name: 'onnxruntime-web', version: runtime.env.versions.web! }
    },
  },
} as const satisfies Record<string, RuntimeEntry>

/** Their operators for attention, beside ours. */
export function peer(runtime: keyof typeof runtimes, operator: Operator): Candidate {
  return {
    isOurs: false,
    // Both have no bf16 tensors; f16 is converted on the way and not always faster than f32.
    dtypes: ({ kvDtype }) => (kvDtype === 'f16' ? ['f16', 'f32'] : ['f32']),
    supports(attentionCase) {
      if (isQuantized(attentionCase.kvDtype)) return `takes no K and V of ${attentionCase.kvDtype}`
      if (attentionCase.window !== null && operator !== 'GroupQueryAttention') return 'has no window'
      const gibibytes = neededBytes(operator, attentionCase) / 2 ** 30
      const most = runtimes[runtime].maxBytes / 2 ** 30
      return (
        gibibytes <= most || `would need ${gibibytes.toFixed(1)} GiB for tensors and scores, the bench allows ${most}`
      )
    },
    open: (attentionCase, dtype) => openPeer(runtimes[runtime], operator, attentionCase, dtype),
  }
}

/** K and V as they go in (twice, where present comes out) and scores in f32. */
function neededBytes(operator: Operator, attentionCase: AttentionCase): number {
  const { heads, kvHeads, headDim, length } = attentionCase
  const copies = { GroupQueryAttention: 2, MultiHeadAttention: heads / kvHeads, Attention: 1 }[operator]
  const rows = 2 * kvHeads * length * headDim * copies
  return 4 * (rows + heads * numQueries(attentionCase) * length)
}

async function openPeer(
  entry: RuntimeEntry,
  operator: Operator,
  attentionCase: AttentionCase,
  stored: StorageType,
): Promise<OpenCandidate> {
  const dtype = stored as FloatType // of those that it asked for
  const { runtime, name, version } = await entry.load(attentionCase.threads)
  const { model, feeds, outputLayout } = createPeerGraph(operator, attentionCase, dtype)
  const session = await runtime.InferenceSession.create(model, {
    ...{ intraOpNumThreads: attentionCase.threads, interOpNumThreads: 1, logSeverityLevel: 3 },
    executionProviders: [name === 'onnxruntime-web' ? 'wasm' : 'cpu'],
  })
  const tensors = Object.fromEntries(
    Object.entries(feeds).map(([key, { type, data, dims }]) => [key, new runtime.Tensor(type, data, dims)]),
  )
  let result: Tensor | undefined
  return {
    description: `${name} ${version} ${operator}`,
    versions: { [name]: version },
    async run() {
      // What is not asked for is not copied out: presents stay inside.
      result = (await session.run(tensors, ['output'])).output as Tensor
    },
    output() {
      const values = toFloat32((result as TypedTensor<'float32'>).data, dtype)
      return outputLayout === 'token-major' ? values : toTokenMajor(values, attentionCase)
    },
    close: () => session.release(),
  }
}

/** `[H, T, D]` to `[T, H, D]`. */
function toTokenMajor(values: Float32Array, attentionCase: AttentionCase): Float32Array {
  const { heads: H, headDim: D } = attentionCase
  const T = numQueries(attentionCase)
  const turned = new Float32Array(values.length)
  for (let h = 0; h < H; h++) {
    for (let t = 0; t < T; t++) turned.set(values.subarray((h * T + t) * D, (h * T + t + 1) * D), (t * H + h) * D)
  }
  return turned
}

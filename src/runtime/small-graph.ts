/** Runs small parts of a published graph, to learn what its masks mean (src/onnx/takeover). */
import { InferenceSession, Tensor } from 'onnxruntime-node'
import { encodeModel, type OpenGraph } from '../onnx/index.ts'
import { KvasirError } from '../tensor/error.ts'
import { f16ToF32 } from '../tensor/float16.ts'

/** `root`: the folder that external data is relative to. */
export function smallGraphs(root: string): OpenGraph {
  return async (model) => {
    const session = await InferenceSession.create(encodeModel(model), options(root)).catch((cause: unknown) => {
      const message = `ONNX Runtime refused a part of the graph that computes a mask: ${String(cause)}`
      throw new KvasirError('unsupported', 'runtime', message, { cause })
    })
    const types = new Map(session.inputMetadata.map((info) => [info.name, info.isTensor ? info.type : undefined]))
    return {
      async run(feeds) {
        const tensors = Object.entries(feeds).map(([name, { dims, values }]) => {
          return [name, tensorOf(types.get(name), values, dims)] as const
        })
        const results = await session.run(Object.fromEntries(tensors)).catch((cause: unknown) => {
          const message = `ONNX Runtime failed in a part of the graph that computes a mask: ${String(cause)}`
          throw new KvasirError('unsupported', 'runtime', message, { cause })
        })
        return Object.fromEntries(
          Object.entries(results).map(([name, { dims, data, type }]) => [name, { dims, values: numbers(type, data) }]),
        )
      },
      release: () => session.release(),
    }
  }
}

function options(root: string): InferenceSession.SessionOptions {
  return {
    graphOptimizationLevel: 'basic',
    intraOpNumThreads: 1,
    interOpNumThreads: 1,
    logSeverityLevel: 4, // a step that does not run is an answer too
    extra: { session: { model_external_initializers_file_folder_path: root } },
  }
}

function tensorOf(type: string | undefined, values: ArrayLike<number>, dims: readonly number[]): Tensor {
  if (type === 'int64') return new Tensor('int64', BigInt64Array.from(values, BigInt), dims)
  if (type === 'int32') return new Tensor('int32', Int32Array.from(values), dims)
  if (type === 'bool') return new Tensor('bool', Uint8Array.from(values), dims)
  if (type === 'float32') return new Tensor('float32', Float32Array.from(values), dims)
  throw new KvasirError('unsupported', 'runtime', `expected inputs of masks in int64, int32 or float32, got ${type}`)
}

function numbers(type: string, data: Tensor['data']): ArrayLike<number> {
  if (type === 'float16') return Float32Array.from(data as Uint16Array, f16ToF32)
  return type === 'int64' ? Float64Array.from(data as BigInt64Array, Number) : (data as Float32Array)
}

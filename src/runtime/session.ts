/** One segment as a session of onnxruntime-node. */
import type { Tensor as OrtTensor } from 'onnxruntime-common'
import { InferenceSession } from 'onnxruntime-node'
import { encodeModel, type Segment } from '../onnx/index.ts'
import { KvasirError } from '../tensor/error.ts'
import type { BufferPool } from './buffer-pool.ts'

export interface SessionOptions {
  readonly threads: number
  /** The folder that external data is relative to. */
  readonly root: string
  /** Let ORT repack weights for its kernels: faster products, but a copy of every weight. */
  readonly prepack: boolean
}

/** Float values `[T, ...]` of the graph, by name, between two sessions. */
export type Values = Map<string, OrtTensor>

export class SegmentSession {
  readonly segment: Segment
  readonly #session: InferenceSession
  /** Elements after `[T]` of each output; undefined where the graph does not say. */
  readonly #rowShapes: readonly (readonly number[] | undefined)[]

  private constructor(segment: Segment, session: InferenceSession) {
    this.segment = segment
    this.#session = session
    this.#rowShapes = segment.outputs.map((name) => rowShape(segment, name))
  }

  /** @throws KvasirError `internal` when ONNX Runtime refuses the segment */
  static async open(segment: Segment, options: SessionOptions): Promise<SegmentSession> {
    const bytes = encodeModel(segment.model)
    const session = await InferenceSession.create(bytes, ortOptions(options)).catch((cause: unknown) => {
      throw new KvasirError('internal', 'runtime', `ONNX Runtime refused ${segment.name}: ${String(cause)}`, { cause })
    })
    return new SegmentSession(segment, session)
  }

  /**
   * Runs on `numRows` rows: takes the inputs from `values` and adds the outputs, whose memory comes from `pool`, or
   * from `target` where that names them.
   * @throws KvasirError `internal` when ONNX Runtime fails
   */
  async run(values: Values, numRows: number, pool: BufferPool, target?: Values): Promise<void> {
    const { inputs, outputs, name } = this.segment
    const feeds = Object.fromEntries(inputs.map((input) => [input, values.get(input)!]))
    const fetches: Record<string, OrtTensor | null> = {}
    for (const [i, output] of outputs.entries()) {
      const row = this.#rowShapes[i]
      fetches[output] = target?.get(output) ?? (row ? pool.tensor([numRows, ...row]) : null)
    }
    const results = await this.#session.run(feeds, fetches).catch((cause: unknown) => {
      throw new KvasirError('internal', 'runtime', `ONNX Runtime failed in ${name}: ${String(cause)}`, { cause })
    })
    for (const output of outputs) values.set(output, results[output]!)
  }

  async release(): Promise<void> {
    await this.#session.release()
  }
}

/** Why these: docs/decisions/0011-session-options.md. */
function ortOptions({ threads, root, prepack }: SessionOptions): InferenceSession.SessionOptions {
  return {
    graphOptimizationLevel: 'all',
    enableMemPattern: false,
    enableCpuMemArena: false,
    logSeverityLevel: 3, // errors reach the caller; warnings would go to standard error
    intraOpNumThreads: threads,
    interOpNumThreads: 1,
    extra: {
      session: {
        intra_op: { allow_spinning: '0' },
        inter_op: { allow_spinning: '0' },
        disable_prepacking: prepack ? '0' : '1',
        model_external_initializers_file_folder_path: root,
      },
    },
  }
}

/** The shape of an output after its first axis, when that axis is `T` and the others are fixed. */
function rowShape(segment: Segment, output: string): number[] | undefined {
  const info = segment.model.graph!.output.find(({ name }) => name === output)
  const [first, ...rest] = info?.type?.tensorType?.shape?.dim ?? []
  const isFixed = rest.every(({ dimValue }) => typeof dimValue === 'number')
  return first?.dimParam === 'T' && isFixed ? rest.map(({ dimValue }) => dimValue as number) : undefined
}

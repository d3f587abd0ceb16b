/** One segment as a session of onnxruntime-node. */
import type { Tensor as OrtTensor } from 'onnxruntime-common'
import { InferenceSession } from 'onnxruntime-node'
import { encodeModel, type Segment } from '../onnx/index.ts'
import { KvasirError } from '../tensor/error.ts'
import type { BufferPool } from './buffer-pool.ts'
import { declaration, type RowShape, shapeOfRows } from './rows.ts'

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
  /** Declared shapes of the outputs in f32; undefined for others. */
  readonly #shapes: readonly (RowShape | undefined)[]

  private constructor(segment: Segment, session: InferenceSession) {
    this.segment = segment
    this.#session = session
    this.#shapes = segment.outputs.map((name) => floatShape(segment, name))
  }

  /** @throws KvasirError `unsupported` when ONNX Runtime refuses the segment */
  static async open(segment: Segment, options: SessionOptions): Promise<SegmentSession> {
    const bytes = encodeModel(segment.model)
    const session = await InferenceSession.create(bytes, ortOptions(options)).catch((cause: unknown) => {
      throw new KvasirError('unsupported', 'runtime', `ONNX Runtime refused ${segment.name}: ${String(cause)}`, {
        cause,
      })
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
      const shape = this.#shapes[i]
      const dims = shape?.includes('T') ? shapeOfRows(shape, numRows) : undefined
      fetches[output] = target?.get(output) ?? (dims ? pool.tensor(dims) : null)
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

/** The declared shape of an output in f32. */
function floatShape({ model }: Segment, output: string): RowShape | undefined {
  const info = model.graph!.output.find(({ name }) => name === output)
  const declared = info && declaration(info)
  return declared?.type === 1 ? declared.shape : undefined
}

/**
 * One decode step of attention, one layer: our kernels beside onnxruntime's GroupQueryAttention on the same numbers,
 * and beside the machine's own limits measured in the same run.
 *
 * The limit is the roofline: the larger of the bytes of K and V over the read bandwidth and the operations over the
 * rate of fused multiply-adds. Results are compared before anything is timed. onnxruntime computes in f32, on all threads,
 * and its time is that of a step as programs run it: past goes in, present comes out, which copies K and V.
 */
import { availableParallelism } from 'node:os'
import { createRandom } from '../src/kernels/cases.ts'
import type { AttendArgs, StorageType } from '../src/kernels/index.ts'
import { KvasirError } from '../src/tensor/error.ts'
import { f16ToF32, f32ToF16 } from '../src/tensor/float16.ts'
import { openGroupQueryAttention } from './group-query-attention.ts'
import { LimitProbe, type MeasurableKernels, type MeasurableName, median, medianMs, openMeasurable } from './measure.ts'

export interface DecodeBenchOptions {
  readonly backends?: readonly MeasurableName[]
  readonly dtypes?: readonly StorageType[]
  readonly kvLengths?: readonly number[]
  /** G: query heads for each KV head. */
  readonly groups?: readonly number[]
  readonly kvHeads?: number
  readonly headDim?: number
  /** Default: all cores. WebAssembly runs on one. */
  readonly threads?: number
  readonly signal?: AbortSignal
  readonly onRow?: (row: DecodeBenchRow, done: number, total: number) => void
}

export interface DecodeBenchRow {
  readonly backend: MeasurableName
  readonly dtype: StorageType
  readonly heads: number
  readonly kvHeads: number
  readonly headDim: number
  readonly kvLength: number
  readonly threads: number
  readonly ms: number
  /** Bytes of K and V over time. */
  readonly gbPerSecond: number
  readonly readGbPerSecond: number
  readonly fmaGflops: number
  /** The time that the limit would take over ours: 1 is the limit. */
  readonly shareOfLimit: number
  readonly onnxruntimeMs: number
  /** onnxruntime's time over ours. */
  readonly ratioToOnnxruntime: number
}

interface Shape {
  readonly backend: MeasurableName
  readonly dtype: StorageType
  readonly kvLength: number
  readonly group: number
  readonly kvHeads: number
  readonly headDim: number
  readonly threads: number
}

export async function benchDecode(options: DecodeBenchOptions = {}): Promise<DecodeBenchRow[]> {
  const {
    backends = ['native', 'wasm'],
    dtypes = ['f16', 'f32'],
    kvLengths = [2048, 8192, 32768],
    groups = [1, 4, 8],
  } = options
  const { kvHeads = 8, headDim = 128, threads = availableParallelism() } = options
  const shapes: Shape[] = kvLengths.flatMap((kvLength) =>
    groups.flatMap((group) =>
      dtypes.flatMap((dtype) =>
        backends.map((backend) => ({ backend, dtype, kvLength, group, kvHeads, headDim, threads })),
      ),
    ),
  )
  const probes = new Map(
    backends.map((backend) => {
      const kernels = openMeasurable(backend, threads)
      return [backend, { kernels, probe: new LimitProbe(kernels) }]
    }),
  )
  const rows: DecodeBenchRow[] = []
  for (const shape of shapes) {
    if (options.signal?.aborted) throw new KvasirError('aborted', 'bench', 'interrupted')
    const { kernels, probe } = probes.get(shape.backend)!
    rows.push(await benchShape(shape, kernels, probe))
    options.onRow?.(rows.at(-1)!, rows.length, shapes.length)
  }
  for (const { probe } of probes.values()) probe.free()
  return rows
}

async function benchShape(shape: Shape, kernels: MeasurableKernels, probe: LimitProbe): Promise<DecodeBenchRow> {
  const { kvHeads, headDim, kvLength, group, dtype, backend } = shape
  const heads = kvHeads * group
  const inputs = createInputs(shape)
  const { args, free } = createCall(shape, kernels, inputs)
  const peer = await openGroupQueryAttention({ ...shape, numHeads: heads, numKvHeads: kvHeads }, inputs)
  kernels.attend(args)
  compare(args.output, await peer.run(), shape)
  const bytes = 2 * kvHeads * kvLength * headDim * (dtype === 'f16' ? 2 : 4)
  const flops = 4 * heads * kvLength * headDim
  const rounds: { ms: number; readGbPerSecond: number; fmaGflops: number; share: number }[] = []
  for (let round = 0; round < 5; round++) {
    const limits = await probe.measure(bytes)
    const ms = await medianMs(() => kernels.attend(args), 15, 700)
    const limitMs = Math.max(bytes / limits.readGbPerSecond, flops / limits.fmaGflops) / 1e6
    rounds.push({ ms, ...limits, share: limitMs / ms })
  }
  const onnxruntimeMs = await medianMs(async () => void (await peer.run()), 9, 2500)
  await peer.release()
  free()
  const middle = (field: keyof (typeof rounds)[number]) => median(rounds.map((round) => round[field]))
  const ms = middle('ms')
  return {
    ...{ backend, dtype, heads, kvHeads, headDim, kvLength, threads: backend === 'wasm' ? 1 : shape.threads, ms },
    gbPerSecond: bytes / ms / 1e6,
    readGbPerSecond: middle('readGbPerSecond'),
    fmaGflops: middle('fmaGflops'),
    shareOfLimit: middle('share'),
    onnxruntimeMs,
    ratioToOnnxruntime: onnxruntimeMs / ms,
  }
}

/** Values that f16 holds exactly, so that both sides compute with the same numbers. */
function createInputs({ kvHeads, headDim, kvLength, group }: Shape) {
  const random = createRandom(kvLength + group)
  const uniform = (length: number) => {
    const values = new Float32Array(length)
    for (let i = 0; i < length; i++) values[i] = f16ToF32(f32ToF16(2 * random() - 1))
    return values
  }
  const rows = kvHeads * kvLength * headDim
  return { query: uniform(kvHeads * group * headDim), key: uniform(rows), value: uniform(rows) }
}

function createCall(shape: Shape, kernels: MeasurableKernels, inputs: ReturnType<typeof createInputs>) {
  const { kvHeads, headDim, kvLength, group, dtype } = shape
  const memories = [inputs.key, inputs.value].map((rows) => {
    const memory = kernels.alloc(rows.length * (dtype === 'f16' ? 2 : 4))
    if (dtype === 'f32') memory.f32.set(rows)
    else for (let i = 0; i < rows.length; i++) memory.u16[i] = f32ToF16(rows[i]!)
    return memory
  })
  const views = memories.map((memory) => (dtype === 'f16' ? memory.u16 : memory.f32))
  const args: AttendArgs = {
    query: inputs.query,
    output: new Float32Array(kvHeads * group * headDim),
    ...{ numTokens: 1, numHeads: kvHeads * group, numKvHeads: kvHeads, headDim, valueDim: headDim },
    ...{ scale: 1 / Math.sqrt(headDim), firstPosition: 0 },
    segments: [
      { keys: views[0]!, values: views[1]!, capacity: kvLength, lengths: new Int32Array(kvHeads).fill(kvLength) },
    ],
  }
  return {
    args,
    free() {
      for (const memory of memories) memory.free()
    },
  }
}

/** @throws KvasirError `internal` when the two disagree by more than f32 arithmetic explains */
function compare(ours: Float32Array, theirs: Float32Array, shape: Shape): void {
  const worst = ours.reduce((most, value, i) => {
    const difference = Math.abs(value - theirs[i]!)
    return difference <= most ? most : Number.isNaN(difference) ? Number.POSITIVE_INFINITY : difference
  }, 0)
  if (worst <= 1e-4) return
  throw new KvasirError(
    'internal',
    'bench',
    `results differ from onnxruntime's by ${worst} in ${JSON.stringify(shape)}`,
  )
}

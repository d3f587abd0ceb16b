/**
 * Three ways to give kept keys positions by rank when a token has left, one step of one layer: `npx tsx bench/ranks.ts`.
 *
 * - `originals`: keys are kept unrotated beside the rotated ones, and those that moved are made anew from them.
 * - `delta`: rotated keys alone are kept; those that moved are turned by one position more, in place. The rotation is the
 *   same for all and made once. What rounding does to a key adds up: `error` is how far a key is off after so many
 *   steps, in parts of its root mean square; that of `originals` is there for comparison.
 * - `at read`: unrotated keys alone are kept, and all of them are rotated into scratch memory at each step.
 *
 * Moved are the sinks (`streaming`), or half of all (a token leaves from anywhere, as with `linear`).
 */
import type { LayerRotary } from '../src/cache/contract.ts'
import { ranksOf } from '../src/cache/rank-rotations.ts'
import { Plane } from '../src/cache/storage/plane.ts'
import { createRandom, normal } from '../src/kernels/cases.ts'
import { type Kernels, openKernels, type Rotation, type StorageType } from '../src/kernels/index.ts'
import { fillRotaryTable, rotaryEncoding } from '../src/positions/index.ts'
import { median } from './measure.ts'

const [K, D, pairs] = [8, 128, 64]
const types = ['f32', 'f16', 'int8'] as const satisfies StorageType[]
const errorSteps = [100, 1000, 10_000]
const rounds = 5

const encoding = rotaryEncoding({ rope_theta: 10_000, hidden_size: K * D, num_attention_heads: K }, D)
const rotary: LayerRotary = {
  ...{ pairs, isInterleaved: false },
  fill: (positions, length, cos, sin) => fillRotaryTable(encoding.at(length), positions, cos, sin),
}

/** Of each number. */
function rotation(numbers: Float64Array): Rotation {
  const [cos, sin] = [new Float32Array(numbers.length * pairs), new Float32Array(numbers.length * pairs)]
  rotary.fill(numbers, 1, cos, sin)
  return { cos, sin, rotaryPairs: pairs, isInterleaved: false }
}

/** Rows of `target` anew from those of `source`, as caches do it: by a table that has each rotation once. */
function turn(kernels: Kernels, source: Plane, target: Plane, slots: Int32Array, turns: Int32Array): void {
  const { cos, sin, size: numTokens } = ranksOf(rotary, turns, 1)
  kernels.turn({
    ...{ source: source.array, target: target.array, storage: target.format.storage, headDim: D },
    ...{ hadamard: target.format.hadamard, capacity: target.bytes / target.rowBytes, count: slots.length },
    ...{ rows: slots, turns, rotation: { cos, sin, rotaryPairs: pairs }, numTokens },
  })
}

interface Turn {
  readonly source: Float32Array
  readonly slots: Int32Array
  readonly turn: Rotation | undefined
}

/** Row n of `source` goes to row slots[n], turned by rotation n. */
function write(kernels: Kernels, target: Plane, { source, slots, turn }: Turn): void {
  const count = slots.length
  kernels.store({
    targets: [
      {
        ...{ source, target: target.array, storage: target.format.storage, hadamard: target.format.hadamard },
        ...{ layout: 'shared', rotation: turn, headDim: D, capacity: target.bytes / target.rowBytes },
      },
    ],
    ...{ numTokens: count, numKvHeads: 1, counts: Int32Array.of(count), slots, stride: count },
    tokens: Int32Array.from(slots, (_, n) => n),
  })
}

/** Those rows of each head that move, of W. */
function slotsOf(window: number, moved: number): Int32Array {
  return Int32Array.from({ length: K * moved }, (_, n) => Math.floor(n / moved) * window + (n % moved))
}

function time(kernels: Kernels, storage: StorageType, window: number, moved: number): Record<string, number> {
  const format = { dim: D, storage, hadamard: storage === 'int8' }
  const [keys, originals, scratch] = [0, 1, 2].map(() => new Plane(kernels, format, K * window)) as [
    Plane,
    Plane,
    Plane,
  ]
  const [slots, all] = [slotsOf(window, moved), slotsOf(window, window)]
  const source = normal(createRandom(1), K * window * D)
  for (const plane of [keys, originals]) write(kernels, plane, { source, slots: all, turn: undefined })
  const one = rotation(new Float64Array(slots.length).fill(1))
  const newest = slotsOf(window, 1)
  const fresh = source.slice(0, K * D)
  const numbers = (moved: number): Int32Array => slotsOf(window, moved).map((slot) => slot % window)
  const ways: Record<string, () => void> = {
    originals() {
      turn(kernels, originals, keys, slots, numbers(moved))
      write(kernels, originals, { source: fresh, slots: newest, turn: undefined })
    },
    delta: () => write(kernels, keys, { source: keys.read(slots), slots, turn: one }),
    'at read': () => turn(kernels, originals, scratch, all, numbers(window)),
  }
  const times = Object.fromEntries(Object.keys(ways).map((name) => [name, [] as number[]]))
  for (let round = -1; round < rounds; round++) {
    for (const [name, run] of Object.entries(ways)) {
      const start = performance.now()
      run()
      if (round >= 0) times[name]!.push(performance.now() - start)
    }
  }
  for (const plane of [keys, originals, scratch]) plane.free()
  return Object.fromEntries(Object.entries(times).map(([name, all]) => [name, median(all)]))
}

/** How far keys are off after so many moves by one, over their root mean square. */
function errors(kernels: Kernels, storage: StorageType): { step: number; delta: number; originals: number }[] {
  const rows = 8
  const format = { dim: D, storage, hadamard: storage === 'int8' }
  const [keys, originals, anew] = [0, 1, 2].map(() => new Plane(kernels, format, rows)) as [Plane, Plane, Plane]
  const slots = Int32Array.from({ length: rows }, (_, n) => n)
  const source = normal(createRandom(2), rows * D)
  const one = rotation(new Float64Array(rows).fill(1))
  for (const plane of [keys, originals]) write(kernels, plane, { source, slots, turn: undefined })
  const exact = new Plane(kernels, { ...format, storage: 'f32', hadamard: false }, rows)
  const off = (plane: Plane): number => {
    const [got, expected] = [plane.read(slots), exact.read(slots)]
    const squares = got.reduce((sum, value, i) => sum + (value - expected[i]!) ** 2, 0)
    return Math.sqrt(squares / expected.reduce((sum, value) => sum + value ** 2, 0))
  }
  const found: { step: number; delta: number; originals: number }[] = []
  for (let step = 1; step <= Math.max(...errorSteps); step++) {
    write(kernels, keys, { source: keys.read(slots), slots, turn: one })
    if (!errorSteps.includes(step)) continue
    const turn = rotation(new Float64Array(rows).fill(step))
    write(kernels, exact, { source, slots, turn })
    write(kernels, anew, { source: originals.read(slots), slots, turn })
    found.push({ step, delta: off(keys), originals: off(anew) })
  }
  for (const plane of [keys, originals, anew, exact]) plane.free()
  return found
}

const kernels = openKernels({ threads: 1 })
for (const storage of types) {
  for (const window of [256, 2048]) {
    for (const moved of [4, window / 2]) {
      const times = Object.entries(time(kernels, storage, window, moved)).map(
        ([name, ms]) => `${name} ${ms.toFixed(3)} ms`,
      )
      console.log(`${storage.padEnd(5)} W ${window}, ${moved} of each head moved: ${times.join(', ')}`)
    }
  }
  for (const { step, delta, originals } of errors(kernels, storage)) {
    console.log(
      `${storage.padEnd(5)} error after ${step} steps: delta ${delta.toExponential(1)}, originals ${originals.toExponential(1)}`,
    )
  }
}

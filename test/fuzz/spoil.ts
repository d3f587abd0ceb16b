/** Spoils arguments: one property of an object, or one value of a list, becomes something that does not belong there. */
import { pickFrom } from '../../src/kernels/cases/random.ts'
import { storageTypes } from '../../src/kernels/index.ts'
import type { TypedArray } from './homes.ts'

type Random = () => number

const numbers = [
  ...[0, 1, 2, 3, 5, 31, 32, 33, 64, 65535, 65536, 65537, 0x7ffffffd, 0x7ffffffe, 0x7fffffff, 2 ** 31, 2 ** 32],
  ...[-1, -2, -0, 0.5, 1.5, -(2 ** 31), 2 ** 53, 1e18, 9.3e18, 1e300, -1e300, 1e-300],
  ...[Number.NaN, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY],
]
/** Names that are right elsewhere, and such as are right nowhere. */
const names = [...storageTypes, 'head-major', 'token-major', 'shared', 'f64', 'fp8', 'int2', 'INT8', '']
const integers = [0, 1, 2, 7, 31, 32, -1, -2, 1000, 1 << 20, 0x7ffffffe, 0x7fffffff, -0x7fffffff, -0x80000000]

/** The paths to all numbers, booleans, arrays and absent options within an object. */
export function pathsOf(value: object, path: readonly string[] = []): string[][] {
  return Object.entries(value).flatMap(([name, each]) => {
    const here = [...path, name]
    const isBranch = typeof each === 'object' && each !== null && !ArrayBuffer.isView(each)
    return isBranch ? pathsOf(each, here) : [here]
  })
}

/** Changes one property of `args` in place and returns its path. */
export function spoilOne(args: object, random: Random): string {
  const path = pickFrom(random, pathsOf(args))
  const parent = path.slice(0, -1).reduce<object>((at, name) => at[name as keyof typeof at], args)
  const name = path.at(-1) as string
  Object.assign(parent, { [name]: spoiled(parent[name as keyof typeof parent], random) })
  return path.join('.')
}

/** Something like `value` that is slightly or entirely wrong. */
function spoiled(value: unknown, random: Random): unknown {
  if (typeof value === 'number') {
    return random() < 0.3 ? value + pickFrom(random, [-1, 1, 0.5]) : pickFrom(random, numbers)
  }
  if (ArrayBuffer.isView(value)) return spoiledArray(value as TypedArray, random)
  if (typeof value === 'string') return pickFrom(random, names)
  if (typeof value === 'boolean') return !value
  return pickFrom<unknown>(random, [undefined, 0, 1, new Float32Array(4), new Int32Array(4), new Int32Array(0)])
}

function spoiledArray(array: TypedArray, random: Random): unknown {
  const kind = random()
  if (array.length === 0)
    return pickFrom(random, [undefined, new Float32Array(1), new Int32Array(1), new Uint8Array(0)])
  if (kind < 0.35) return array.subarray(0, Math.max(0, array.length - pickFrom(random, [1, 1, 2, 8])))
  if (kind < 0.4) return array.subarray(1)
  if (kind < 0.45) return array.subarray(0, 0)
  if (kind < 0.5) return detached(array)
  if (kind < 0.6) return undefined
  if (kind < 0.7) return pickFrom(random, [Float32Array, Int32Array, Uint16Array, Uint8Array, Float64Array]).from(array)
  if (array instanceof Int32Array && array.length > 0) {
    array[Math.floor(random() * array.length)] = pickFrom(random, integers)
  }
  return array
}

function detached(array: TypedArray): TypedArray {
  const copy = array.slice()
  structuredClone(copy.buffer, { transfer: [copy.buffer as ArrayBuffer] })
  return copy
}

/** What no call takes. */
export function junk(random: Random, strangers: readonly object[]): unknown {
  return pickFrom<() => unknown>(random, [
    () => undefined,
    () => null,
    () => true,
    () => '12',
    () => 12n,
    () => Symbol('junk'),
    () => ({}),
    () => () => 1,
    () => [1, 2, 3],
    () => new ArrayBuffer(64),
    () => new SharedArrayBuffer(64),
    () => new DataView(new ArrayBuffer(64)),
    () => new BigInt64Array(8),
    () => new Uint8ClampedArray(8),
    () => new Int8Array(0),
    () => new Float32Array(1),
    () => detached(new Float32Array(64)),
    () => pickFrom(random, numbers),
    () => pickFrom(random, strangers),
    () => new Proxy({}, {}),
  ])()
}

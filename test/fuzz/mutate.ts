/** Damages values as files hold them: JSON, and decoded ONNX messages. */
import { pickFrom } from '../../src/kernels/cases/random.ts'

/** What hostile files say instead of a sound value. */
const hostile: readonly unknown[] = [
  ...[null, true, '', 'x', '../../etc/passwd', '__proto__', '\u0000', [], {}, [[]], -1, 0, 1, 2, 3, 7, 255],
  ...[
    0.5,
    1e-300,
    -0,
    2 ** 31,
    2 ** 32,
    2 ** 53 + 2,
    1e300,
    'NaN',
    'A'.repeat(1000),
    { type: 'x' },
    [null],
    ['a', 'b'],
  ],
]

interface Place {
  readonly holder: Record<string, unknown>
  readonly key: string
}

/** A deep copy; arrays of bytes stay as they are. */
function copyOf(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(copyOf)
  if (typeof value !== 'object' || value === null || ArrayBuffer.isView(value)) return value
  return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, copyOf(item)]))
}

/** Changes a few places of a copy: a value becomes a hostile or a like one, goes away, or changes places with another. */
export function mutated(random: () => number, value: unknown, sameKind: boolean): unknown {
  const copy = { root: copyOf(value) }
  const changes = 1 + Math.floor(random() * 3)
  for (let i = 0; i < changes; i++) change(random, copy, sameKind)
  return copy.root
}

function change(random: () => number, all: { root: unknown }, sameKind: boolean): void {
  const places = [...placesIn(all as Record<string, unknown>)].slice(1)
  if (places.length === 0) return
  const { holder, key } = pickFrom(random, places)
  const kind = random()
  if (Array.isArray(holder) && kind < 0.2) holder.splice(Number(key), 1)
  else if (kind < 0.2) delete holder[key]
  else if (kind < 0.5) holder[key] = likeOf(random, holder[key], sameKind)
  else if (kind < 0.8 && !sameKind) holder[key] = copyOf(pickFrom(random, hostile))
  else {
    const old = holder[key]
    const others = places.filter(
      (other) => typeof other.holder[other.key] === typeof old && isArray(other) === Array.isArray(old),
    )
    const other = pickFrom(random, others.length > 0 ? others : places)
    if (!sameKind || other.key === key || typeof old !== 'object') holder[key] = copyOf(other.holder[other.key])
  }
}

function isArray({ holder, key }: Place): boolean {
  return Array.isArray(holder[key])
}

function likeOf(random: () => number, value: unknown, sameKind: boolean): unknown {
  if (typeof value === 'number') {
    const numbers = [0, 1, -1, 2, 3, 2 ** 31, 2 ** 40, value + 1, value - 1, -value, 2 * value, Math.floor(value / 2)]
    return pickFrom(random, numbers)
  }
  if (typeof value === 'string') return pickFrom(random, ['', `${value}x`, value.slice(1), value.toUpperCase(), '../x'])
  if (Array.isArray(value)) return random() < 0.5 ? value.toReversed() : [...value, ...value.slice(0, 1)]
  return sameKind ? value : null
}

/** At most so many places are looked at, so that vocabularies don't take all of them. */
const mostChildren = 400

function* placesIn(holder: Record<string, unknown>): Generator<Place> {
  const keys = Object.keys(holder)
  for (const key of keys.length > mostChildren ? keys.slice(0, mostChildren) : keys) {
    yield { holder, key }
    const value = holder[key]
    if (typeof value !== 'object' || value === null || ArrayBuffer.isView(value)) continue
    yield* placesIn(value as Record<string, unknown>)
  }
}

/** Some bytes are others, or the end is missing. */
export function damagedBytes(random: () => number, bytes: Uint8Array, within = bytes.length): Uint8Array {
  const damaged = new Uint8Array(bytes).slice(0, random() < 0.2 ? Math.floor(random() * bytes.length) : bytes.length)
  const count = 1 + Math.floor(random() * 6)
  for (let i = 0; i < count; i++) {
    const at = Math.floor(random() * Math.min(within, damaged.length))
    if (at < damaged.length) damaged[at] = Math.floor(random() * 256)
  }
  return damaged
}

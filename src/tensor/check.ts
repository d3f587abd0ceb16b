/**
 * Checks of user input at the public edge. Each throws a KvasirError that names the argument, what was expected and
 * what came; code below the edge does not check again.
 */
import { invalidArgument } from './error.ts'

/** Throws unless `value` is an integer in [min, max]. */
export function checkInteger(
  area: string,
  name: string,
  value: unknown,
  min: number,
  max = Number.MAX_SAFE_INTEGER,
): asserts value is number {
  if (Number.isInteger(value) && (value as number) >= min && (value as number) <= max) return
  const range = max === Number.MAX_SAFE_INTEGER ? `of at least ${min}` : `in ${min}..${max}`
  throw invalidArgument(area, `expected an integer ${range} for ${name}, got ${describe(value)}`)
}

/** Throws unless `value` is a finite number. */
export function checkFinite(area: string, name: string, value: unknown): asserts value is number {
  if (Number.isFinite(value)) return
  throw invalidArgument(area, `expected a finite number for ${name}, got ${describe(value)}`)
}

/** Throws unless `value` is one of `choices`; the message names the nearest one. */
export function checkChoice<T extends string>(
  area: string,
  name: string,
  value: unknown,
  choices: readonly T[],
): asserts value is T {
  if (choices.includes(value as T)) return
  const list = choices.map((choice) => JSON.stringify(choice)).join(', ')
  throw invalidArgument(
    area,
    `expected one of ${list} for ${name}, got ${describe(value)}${didYouMean(value, choices)}`,
  )
}

/** Throws unless `options` is an object, as options are given: no list, no number, not nothing. */
export function checkObject(area: string, what: string, options: unknown): asserts options is object {
  if (typeof options === 'object' && options !== null && !Array.isArray(options) && !ArrayBuffer.isView(options)) return
  throw invalidArgument(area, `expected an object with the options of ${what}, got ${describe(options)}`)
}

/** Throws when `options` has a key that is not in `known`; the message names the nearest known key. */
export function checkKeys(area: string, what: string, options: object, known: readonly string[]): void {
  checkObject(area, what, options)
  for (const key of Object.keys(options)) {
    if (known.includes(key)) continue
    throw invalidArgument(
      area,
      `unknown option "${key}" for ${what}${didYouMean(key, known)}; known: ${known.join(', ')}`,
    )
  }
}

/** A short rendering of any value for an error message. */
export function describe(value: unknown): string {
  if (typeof value === 'string') return JSON.stringify(value.length > 60 ? `${value.slice(0, 57)}...` : value)
  if (typeof value === 'function') return 'a function'
  if (ArrayBuffer.isView(value))
    return `${/^[AEIO]/.test(value.constructor.name) ? 'an' : 'a'} ${value.constructor.name}`
  if (Array.isArray(value)) return `an array of ${value.length}`
  if (typeof value === 'object' && value !== null) return `an object (${value.constructor?.name ?? 'no prototype'})`
  return String(value)
}

/** " (did you mean ...?)" with the nearest choice, or nothing when none is near. */
export function didYouMean(value: unknown, choices: readonly string[]): string {
  if (typeof value !== 'string') return ''
  const [nearest] = choices
    .map((choice) => ({ choice, distance: editDistance(value.toLowerCase(), choice.toLowerCase()) }))
    .filter(({ choice, distance }) => distance <= Math.max(2, choice.length / 3))
    .sort((a, b) => a.distance - b.distance)
  return nearest ? ` (did you mean "${nearest.choice}"?)` : ''
}

/** Levenshtein distance in O(a * b), on short option names only. */
function editDistance(a: string, b: string): number {
  if (a.length > 64 || b.length > 64) return 64
  let previous = Array.from({ length: b.length + 1 }, (_, j) => j)
  for (let i = 1; i <= a.length; i++) {
    const row = [i]
    for (let j = 1; j <= b.length; j++) {
      const substitute = (previous[j - 1] as number) + (a[i - 1] === b[j - 1] ? 0 : 1)
      row.push(Math.min(substitute, (previous[j] as number) + 1, (row[j - 1] as number) + 1))
    }
    previous = row
  }
  return previous[b.length] as number
}

import { expect, test } from 'vitest'
import { massBudgets, selectRows } from './selection.ts'

const head = (scores: readonly number[], positions = scores.map((_, n) => n)) => ({
  scores: Float64Array.from(scores),
  positions: Float64Array.from(positions),
})
const kept = (flags: readonly Uint8Array[]) =>
  flags.map((own) => Array.from(own, (flag, n) => (flag ? n : -1)).filter((n) => n >= 0))
const rules = { budget: 3, sinks: 0, recent: 0 }

test('the best stay, of equal ones the newer; many rows or one to evict', () => {
  expect(kept(selectRows([head([1, 1, 1, 1])], rules))).toEqual([[1, 2, 3]])
  expect(kept(selectRows([head([2, 1, 2, 2, 2, 2, 2, 2, 2, 2])], rules))).toEqual([[7, 8, 9]])
  expect(kept(selectRows([head([5, 1, 4, 2, 3, 0, 0, 0, 0])], rules))).toEqual([[0, 2, 4]])
})

test('sinks and recent rows stay whatever their score, and count', () => {
  const scores = head([0, 9, 8, 7, 6, 0])
  expect(kept(selectRows([scores], { budget: 3, sinks: 1, recent: 1 }))).toEqual([[0, 1, 5]])
})

test('-Infinity never stays, NaN is refused', () => {
  expect(kept(selectRows([head([1, Number.NEGATIVE_INFINITY, 2])], rules))).toEqual([[0, 2]])
  expect(() => selectRows([head([1, Number.NaN])], rules)).toThrow(/NaN/)
})

test('heads that share: the safeguard of each, then the best of all; equal ones by age, then by head', () => {
  const heads = [head([9, 8, 7, 6, 5]), head([1, 2, 3, 4, 0])]
  expect(kept(selectRows(heads, { budget: 3, sinks: 0, recent: 0, safeguard: 0.4 }))).toEqual([[0, 1, 2, 3, 4], [3]])
  const equal = [head([1, 1, 1]), head([1, 1, 1])]
  expect(kept(selectRows(equal, { budget: 1.5, sinks: 0, recent: 0, safeguard: 0 }))).toEqual([[1, 2], [2]])
})

test('dynamic windows: as many as hold the mass, within bounds and the total', () => {
  const heads = [head([4, 3, 2, 1]), head([4, 3, 2, 1])]
  const masses = [Float32Array.of(97, 1, 1, 1), Float32Array.of(25, 25, 25, 25)]
  const dynamic = { least: 1, keepMass: 0.96 }
  expect(massBudgets(heads, masses, dynamic, { budget: 3, sinks: 0, recent: 0 }, 4)).toEqual([1, 4])
  expect(massBudgets(heads, masses, dynamic, { budget: 2, sinks: 0, recent: 0 }, 4)).toEqual([1, 3])
})

test('of many rows the same leave as by sorting, with and without ties', () => {
  for (const [count, values] of [
    [3000, 1e9],
    [3000, 7],
    [500, 1],
  ] as const) {
    const scores = Array.from({ length: count }, (_, n) => (n * 7919 + ((n * n) % 104_729)) % values)
    const order = scores.map((_, n) => n).sort((a, b) => scores[a]! - scores[b]! || a - b)
    for (const budget of [1, 100, count - 1, count]) {
      const wanted = order.slice(count - budget).sort((a, b) => a - b)
      expect(kept(selectRows([head(scores)], { budget, sinks: 0, recent: 0 }))).toEqual([wanted])
    }
  }
})

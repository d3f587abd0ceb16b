/**
 * Every pairing of policy, storage type, storage and positions does what arrays and loops do (testing/naive-layer.ts),
 * over random sequences of calls: outputs, who stays and with what score. Memory that holds no row is NaN, and every
 * page is accounted for after every call. A failure prints its seed; KVASIR_SEED repeats it.
 */
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import type { CacheOptions } from '../cache/contract.ts'
import { openKernels } from '../kernels/index.ts'
import { policyNames, readPolicy } from './index.ts'
import { Sequences, type Step, type StepKind } from './testing/sequences.ts'

const kinds: readonly StepKind[] = [
  ...(['append', 'append', 'decode', 'decode', 'decode', 'fork', 'swap', 'reset', 'truncate', 'dispose'] as const),
]
const steps: fc.Arbitrary<Step[]> = fc.array(
  fc.record({ kind: fc.constantFrom(...kinds), size: fc.integer({ min: 1, max: 13 }) }),
  { minLength: 6, maxLength: 14 },
)

const window = 12
const choices: CacheOptions[] = [
  { policy: 'full' },
  { policy: 'full', window },
  { policy: 'window', window },
  { policy: 'streaming', window },
  { policy: 'linear', window },
  { policy: 'linear', window, sinks: 2, recent: 3 },
  { policy: 'linear', window, importance: 'value-norm' },
  { policy: 'linear', window, importance: 'key-norm', sinks: 1 },
  { policy: 'random', window, seed: 5 },
  { policy: 'h2o', window },
  { policy: 'tova', window, interval: 2 },
  { policy: 'snapkv', window, interval: 3 },
  { policy: 'keydiff', window, sinks: 1 },
  { policy: 'lagkv', window: 20 },
  { policy: 'expected-attention', window },
  { policy: 'adakv', window },
  { policy: 'adakv(linear)', window },
  { policy: 'pyramidkv(keydiff)', window: 40 },
  { policy: 'snapkv', window, leastWindow: 5, keepMass: 0.6 },
]

/** Logic shows with any type; each of the others reads and writes rows in a way of its own. */
const types: Partial<CacheOptions>[] = [
  ...[{ kvDtype: 'f32' as const }, { kvDtype: 'f16' as const }, { kvDtype: 'bf16' as const }],
  ...[{ kvDtype: 'int8' as const }, { kvDtype: 'fp8-e4m3' as const }],
  { kvDtype: 'fp8-e5m2', residual: 0 },
  { kvDtype: 'int4', residual: 5 },
  { kvDtypeK: 'int8', kvDtypeV: 'int4', residual: 0 },
]

/**
 * snapkv asks its last queries again, or adds up what they saw as they came. Where a token left f16 in between these are
 * not the same, and both are right: the choice among tokens of 8-bit floats, which are coarse, may differ.
 */
function withTypes(choice: CacheOptions, type: Partial<CacheOptions>): CacheOptions {
  const asksAgain = /^(snapkv|adakv)$/.test(choice.policy ?? '')
  return { ...choice, ...type, ...(asksAgain && type.kvDtype === 'fp8-e4m3' ? { residual: window } : {}) }
}

const kernels = openKernels({ threads: 1 })
const seed = Number(process.env.KVASIR_SEED ?? 1)

describe.each(choices)('%j', (choice) => {
  describe.each(['contiguous', 'paged'] as const)('%s', (storage) => {
    test.each(types)('original and by rank, %j', (type) => {
      const [numRuns, offset] = [type.kvDtype === 'f32' ? 3 : 1, types.indexOf(type)]
      for (const positions of ['original', 'rank'] as const) {
        // What a query would see of its window by rank is refused.
        if (positions === 'rank' && choice.policy === 'full' && choice.window !== undefined) continue
        const options: CacheOptions = { ...withTypes(choice, type), storage, pageSize: 4, positions }
        const property = fc.property(steps, fc.integer({ min: 0, max: 1000 }), (list, own) => {
          const sequences = new Sequences(kernels, options, own)
          for (const step of list) sequences.step(step)
          sequences.dispose()
        })
        fc.assert(property, { numRuns, seed: seed + offset })
      }
    })
  })
})

describe('with tokens that come back', () => {
  const longer: fc.Arbitrary<Step[]> = fc.array(
    fc.record({ kind: fc.constantFrom(...kinds, 'read' as const), size: fc.integer({ min: 1, max: 13 }) }),
    { minLength: 5, maxLength: 8 },
  )
  const evicting = choices.filter(({ policy }) => policy !== 'full')

  /** Each policy with every storage type, in turns contiguous and paged, and with one page or two. */
  describe.each(evicting)('%j', (choice) => {
    test.each(types)('%j', (type) => {
      const turn = evicting.indexOf(choice) + types.indexOf(type)
      const storage = turn % 2 ? 'paged' : 'contiguous'
      const options: CacheOptions = { ...withTypes(choice, type), storage, pageSize: 4, recall: turn % 3 ? 2 : 1 }
      const property = fc.property(longer, fc.integer({ min: 0, max: 1000 }), (list, own) => {
        const sequences = new Sequences(kernels, options, own)
        sequences.step({ kind: 'read', size: 1 })
        for (const step of list) sequences.step(step)
        sequences.dispose()
      })
      fc.assert(property, { numRuns: 1, seed: seed + turn })
    })
  })
})

test('no policy is left out', () => {
  const covered = new Set(choices.map(({ policy }) => readPolicy(policy).name as string))
  const wrappers = choices.flatMap(({ policy }) => policy.match(/[a-z]+kv(?=\(|$)/g) ?? [])
  expect([...policyNames].filter((name) => !covered.has(name) && !wrappers.includes(name))).toEqual([])
})

/**
 * Pools that are used up: whatever is refused has changed nothing, whatever is not gives what a cache with memory of its
 * own gives. Random calls to several sequences and their forks, under fewer bytes than they want.
 */
import { expect, test } from 'vitest'
import type { CacheOptions, KvCache, LayerInput } from '../cache/contract.ts'
import { smallRotary as rotary, smallLayer as shape } from '../cache/testing/small-layer.ts'
import { createRandom, normal } from '../kernels/cases.ts'
import { openKernels } from '../kernels/index.ts'
import { isKvasirError } from '../tensor/error.ts'
import { createKvCache, createKvPool } from './index.ts'

const kernels = openKernels({ threads: 1 })
const { numHeads: H, numKvHeads: K, headDim: D, valueDim: E } = shape
const model = { numLayers: 1, layers: [shape], hasImportance: true }

interface Pair {
  readonly pooled: KvCache
  readonly alone: KvCache
}

const choices: CacheOptions[] = [
  { policy: 'full', kvDtype: 'int8', residual: 3 },
  { policy: 'linear', window: 15, kvDtype: 'int4', residual: 5 },
  { policy: 'linear', window: 15, recall: 1 },
  { policy: 'linear', window: 13, positions: 'rank' },
  { policy: 'streaming', window: 17, positions: 'rank', kvDtype: 'fp8-e4m3', residual: 5 },
  { policy: 'h2o', window: 14, interval: 5 },
  { policy: 'h2o', window: 14, interval: 5, recall: 1 },
  { policy: 'keydiff', window: 12, positions: 'rank', interval: 3 },
  { policy: 'adakv(linear)', window: 12, kvDtype: 'int8', residual: 4 },
]

test.each(choices.map((choice) => ({ ...choice, evictionLog: 8 })))('%j', (choice) => {
  let [numRefused, numTaken] = [0, 0]
  for (let seed = 1; seed <= 5; seed++) {
    const { refused, taken } = play(choice, createRandom(seed))
    numRefused += refused
    numTaken += taken
  }
  expect(numRefused).toBeGreaterThan(5)
  expect(numTaken).toBeGreaterThan(80)
})

function play(choice: CacheOptions, random: () => number): { refused: number; taken: number } {
  const { kvDtype, residual } = choice
  const integer = (below: number): number => Math.floor(random() * below)
  const pool = createKvPool(kernels, { kvDtype, residual, pageSize: 1 + integer(4), kvBudget: 1500 + integer(5000) })
  const pooled = createKvCache(kernels, model, { ...choice, pool })
  const pairs: Pair[] = [{ pooled, alone: createKvCache(kernels, model, choice) }]
  const counts = { refused: 0, taken: 0 }
  for (let step = 0; step < 60; step++) {
    const pair = pairs[integer(pairs.length)] as Pair
    const kind = integer(10)
    if (kind < 7) counts[feed(pair, newTokens(random, kind < 5 ? 1 : 1 + integer(9)))]++
    else if (kind < 9 && pairs.length < 5) pairs.push({ pooled: pair.pooled.fork(), alone: pair.alone.fork() })
    else if (pairs.length > 1) dispose(pairs.splice(integer(pairs.length), 1)[0] as Pair)
    pool.checkIntegrity()
    expect(pool.usedBytes).toBeLessThanOrEqual(pool.maxBytes)
    for (const { pooled, alone } of pairs) expect(pooled.explain?.()).toEqual(alone.explain?.())
  }
  for (const pair of pairs) dispose(pair)
  expect(pool.usedBytes).toBe(0)
  return counts
}

function newTokens(random: () => number, numTokens: number): LayerInput {
  return {
    ...{ numTokens, query: normal(random, numTokens * H * D), key: normal(random, numTokens * K * D) },
    value: normal(random, numTokens * K * E),
    importance: normal(random, numTokens * K).map((score) => (random() < 0.1 ? Number.NEGATIVE_INFINITY : score)),
    rotary,
  }
}

function feed({ pooled, alone }: Pair, input: LayerInput): 'refused' | 'taken' {
  const [output, expected] = [new Float32Array(input.numTokens * H * E), new Float32Array(input.numTokens * H * E)]
  const before = [pooled.seenTokens, pooled.explain?.()]
  try {
    pooled.layer(0).attend(input, output)
  } catch (error) {
    expect(isKvasirError(error) && error.code).toBe('out-of-memory')
    expect([pooled.seenTokens, pooled.explain?.()]).toEqual(before)
    return 'refused'
  }
  alone.layer(0).attend(input, expected)
  const worst = Math.max(...output.map((value, n) => Math.abs(value - (expected[n] as number))))
  expect(worst).toBeLessThan(1e-4)
  return 'taken'
}

function dispose({ pooled, alone }: Pair): void {
  pooled.dispose()
  alone.dispose()
}

/**
 * Throws calls at the addon, each from a seed of its own. Started by tools/fuzz-native.mjs, which has built the addon
 * with sanitizers; writes the number of the seed at hand to a file, since a crash says nothing any more.
 */
import { openSync, writeSync } from 'node:fs'
import { parseArgs } from 'node:util'
import { createRandom } from '../../src/kernels/cases/random.ts'
import { backgroundCall, goodCall, spoiledCall, tightCallOf } from './checked.ts'
import { Homes } from './homes.ts'
import { rawCall } from './raw.ts'

const { values } = parseArgs({
  options: { seed: { type: 'string' }, seconds: { type: 'string' }, cases: { type: 'string' }, at: { type: 'string' } },
})
const first = Number(values.seed)
const until = performance.now() + 1000 * Number(values.seconds)
const most = values.cases === undefined ? Number.POSITIVE_INFINITY : Number(values.cases)
const file = openSync(values.at ?? '', 'w')

/** Kinds of calls, up to which share of all; the rest is in the background. */
const kinds = [
  ['good', 0.4],
  ['tight', 0.55],
  ['spoiled', 0.75],
  ['raw', 0.99],
] as const

async function runCase(seed: number): Promise<string> {
  const random = createRandom(seed)
  for (let i = 0; i < 3; i++) random()
  const homes = new Homes(random)
  const share = random()
  const kind = kinds.find(([, end]) => share < end)?.[0] ?? 'background'
  if (kind === 'good') goodCall(random, homes)
  else if (kind === 'spoiled') spoiledCall(random, homes)
  else if (kind === 'tight') tightCallOf(random)
  else if (kind === 'raw') await rawCall(random, homes)
  else await backgroundCall(random, homes)
  if (homes.isDamaged()) throw new Error(`a ${kind} call wrote outside of its arrays`)
  return kind
}

const counts: Record<string, number> = {}
for (let n = 0; n < most && (n === 0 || performance.now() < until); n++) {
  const seed = (first + n) >>> 0
  writeSync(file, String(seed).padEnd(10), 0)
  const kind = await runCase(seed)
  counts[kind] = (counts[kind] ?? 0) + 1
  // Guarded memory counts for nothing with the collector, and there are only so many mappings.
  if (n % 500 === 499) globalThis.gc?.()
}
process.stdout.write(`${JSON.stringify(counts)}\n`)

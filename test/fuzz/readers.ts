/**
 * Throws damaged files at the readers: .onnx files and their takeover, safetensors, config.json, tokenizer.json and what
 * belongs to it. Each case has a seed of its own. What is neither read nor answered with a KvasirError is a finding: exit
 * code 1, and how to see it again. No sessions are started.
 *
 *   npm run fuzz:readers -- [--seconds 20] [--seed N] [--cases N]
 */
import { cp, mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { createRandom, pickFrom } from '../../src/kernels/cases/random.ts'
import { isKvasirError } from '../../src/tensor/error.ts'
import { type Reader, readers } from './reader-cases.ts'

const { values } = parseArgs({
  options: { seed: { type: 'string' }, seconds: { type: 'string', default: '20' }, cases: { type: 'string' } },
})
const first = Number(values.seed ?? Date.now() % 2 ** 32)
const until = performance.now() + 1000 * Number(values.seconds)
const most = values.cases === undefined ? Number.POSITIVE_INFINITY : Number(values.cases)
/** Hostile input must not take long to be refused. */
const slowest = 20_000

async function runCase(seed: number, homes: ReadonlyMap<Reader, string>): Promise<string> {
  const random = createRandom(seed)
  const reader = pickFrom(random, [...homes.keys()])
  const home = homes.get(reader)!
  const began = performance.now()
  const restore = await reader.spoil(random, home)
  const outcome = await reader.read(home).then(
    () => 'read',
    (error: unknown) => {
      if (isKvasirError(error) && error.code !== 'internal') return error.code
      throw error
    },
  )
  await restore()
  const took = performance.now() - began
  if (took > slowest) throw new Error(`${reader.name} took ${(took / 1000).toFixed(1)} s`)
  return `${reader.name}: ${outcome}`
}

const root = await mkdtemp(join(tmpdir(), 'kvasir-fuzz-'))
try {
  const homes = new Map<Reader, string>()
  for (const [i, reader] of (await readers()).entries()) {
    const home = join(root, String(i))
    await cp(reader.folder, home, { recursive: true })
    homes.set(reader, home)
    if (!reader.isTemporary) continue
    await rm(reader.folder, { recursive: true })
  }
  const counts: Record<string, number> = {}
  for (let n = 0; n < most && performance.now() < until; n++) {
    const seed = (first + n) >>> 0
    const outcome = await runCase(seed, homes).catch((error: unknown) => {
      process.stderr.write(`FOUND. Once more: npm run fuzz:readers -- --seed ${seed} --cases 1\n`)
      throw error
    })
    counts[outcome] = (counts[outcome] ?? 0) + 1
  }
  process.stdout.write(`${JSON.stringify({ seed: first, counts })}\n`)
} finally {
  await rm(root, { recursive: true, force: true })
}

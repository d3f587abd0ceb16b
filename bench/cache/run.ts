/**
 * A decode step of one layer by policy, storage type and tokens that came before, and what of it is the cache's update.
 * Each case has a process of its own, in which one cache grows from length to length.
 */
import { KvasirError } from '../../src/tensor/error.ts'
import { Contestant, type Skip } from '../contestant.ts'
import { describeMachine } from '../machine.ts'
import { spreadOf } from '../measure.ts'
import type { CacheCase, CacheReport, CaseReport, Flatness, LengthResult, Steps } from './contract.ts'
import type { Reply, Request } from './messages.ts'
import { type CacheBenchOptions, type Plan, planBench } from './plan.ts'

export async function benchCache(options: CacheBenchOptions = {}): Promise<CacheReport> {
  const { cases, lengths, repeat, steps, budgetMs, ...sizes } = planBench(options)
  const plan = { cases, lengths, repeat, steps, budgetMs, ...sizes }
  const total = cases.length * (lengths.length + 1)
  let done = 0
  const reports: CaseReport[] = []
  for (const cacheCase of cases) {
    const title = `${cacheCase.policy} ${cacheCase.kvDtype}`
    const step = (what: string) => options.onProgress?.(done++, total, `${title}: ${what}`)
    reports.push(await runCase(cacheCase, plan, step, options.signal))
  }
  return { machine: describeMachine(), versions: { node: process.version }, ...sizes, repeat, steps, cases: reports }
}

async function runCase(
  cacheCase: CacheCase,
  { lengths, repeat, steps, budgetMs }: Plan,
  step: (what: string) => void,
  signal: AbortSignal | undefined,
): Promise<CaseReport> {
  const contestant = new Contestant<Request, Reply>(import.meta.url)
  const results: LengthResult[] = []
  const skipped: { tokens: number; skipped: string }[] = []
  try {
    const opened = expectKind('opened', await contestant.ask({ kind: 'open', cacheCase, steps, budgetMs }, signal))
    for (const tokens of lengths) {
      step(`${tokens} tokens`)
      const reply = await contestant.ask({ kind: 'measure', tokens, repeat }, signal)
      if (reply.kind === 'skipped') skipped.push({ tokens, skipped: reply.reason })
      else results.push(summarise(cacheCase, tokens, expectKind('measured', reply)))
    }
    step('flatness')
    const flatness = await compare(contestant, cacheCase, lengths, signal)
    const { policy, kvDtype } = cacheCase
    return { policy, kvDtype, description: opened.description, lengths: results, flatness, skipped }
  } finally {
    await contestant.close()
  }
}

async function compare(
  contestant: Contestant<Request, Reply>,
  { policy, window }: CacheCase,
  lengths: readonly number[],
  signal: AbortSignal | undefined,
): Promise<Flatness | null> {
  if (policy === 'full' || (lengths.at(-1) as number) <= window) return null
  const { kind: _, ...flatness } = expectKind('compared', await contestant.ask({ kind: 'compare' }, signal))
  return flatness
}

/** @throws KvasirError `internal` when a process is gone or says something else */
function expectKind<Kind extends Reply['kind']>(kind: Kind, reply: Reply | Skip): Extract<Reply, { kind: Kind }> {
  if (reply.kind === kind) return reply as Extract<Reply, { kind: Kind }>
  const reason = reply.kind === 'skipped' ? reply.reason : reply.kind
  throw new KvasirError('internal', 'bench', `expected a case to be ${kind}, got ${reason}`)
}

function summarise(
  { kvHeads, headDim }: CacheCase,
  tokens: number,
  { rounds, bytes, recallRatio }: Extract<Reply, { kind: 'measured' }>,
): LengthResult {
  const of = (figure: (steps: Steps) => number) => spreadOf(rounds.map(figure))
  return {
    tokens,
    meanMs: of(({ meanMs }) => meanMs),
    medianMs: of(({ medianMs }) => medianMs),
    worstMs: of(({ worstMs }) => worstMs),
    updateShare: of(({ updateShare }) => updateShare),
    typicalUpdateShare: of(({ updateMs, medianMs }) => updateMs / medianMs),
    bytes,
    fullF32Bytes: tokens * kvHeads * 2 * headDim * 4,
    recallRatio,
  }
}

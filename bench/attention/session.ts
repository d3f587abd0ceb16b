/** One contestant with one case, opened, checked and ready to be timed. */
import type { StorageType } from '../../src/kernels/index.ts'
import { type Limits, medianMs } from '../measure.ts'
import { checkAgreement, checkReference, toleranceOf } from './agreement.ts'
import type { Candidate, OpenCandidate } from './candidate.ts'
import type { AttentionCase } from './contract.ts'
import { scratchBytes } from './scratch.ts'

export interface Measurement {
  readonly ms: number
  readonly limits?: Limits
  readonly withoutWindowMs?: number
}

export interface SessionFacts {
  readonly description: string
  readonly dtype: StorageType
  readonly versions: Readonly<Record<string, string>>
  readonly difference: number
  readonly tolerance: number
  /** Of the first call. */
  readonly firstMs: number
  /** Phase `memory`. */
  readonly scratchBytes?: number
}

export interface Session {
  readonly facts: SessionFacts
  /** Times the call for about `budgetMs`, beside the limits of the machine where the contestant can tell them. */
  measure(budgetMs: number): Promise<Measurement>
  close(): Promise<void>
}

const maxCalls = 25
/** Long enough for threads, code and pools to be there, and short. */
const warmUpLength = 256

/**
 * @param file the result of the first contestant of the case; made when it is not there
 * @throws KvasirError `internal` where the result is wrong
 */
export async function openSession(
  name: string,
  candidate: Candidate,
  attentionCase: AttentionCase,
  file: string,
): Promise<Session> {
  const isMemory = attentionCase.phase === 'memory'
  if (isMemory) await warmUp(candidate, attentionCase)
  const { opened, dtype } = await openFastest(candidate, attentionCase)
  const started = performance.now()
  const scratch = isMemory ? await scratchBytes(() => opened.run()) : undefined
  if (!isMemory) await opened.run()
  const firstMs = performance.now() - started
  const result = opened.output()
  const tolerance = toleranceOf(dtype, attentionCase.queryDtype)
  if (candidate.isOurs) checkReference(name, result, attentionCase)
  const difference = checkAgreement(name, result, { attentionCase, file, tolerance })
  const { description, versions = {} } = opened
  return {
    facts: { description, dtype, versions, difference, tolerance, firstMs, scratchBytes: scratch },
    measure: (budgetMs) => measure(opened, budgetMs),
    close: () => opened.close(),
  }
}

async function measure(opened: OpenCandidate, budgetMs: number): Promise<Measurement> {
  const { probe, runWithoutWindow } = opened
  const before = await probe?.measure()
  const ms = await medianMs(() => opened.run(), maxCalls, budgetMs)
  const limits = before && probe && best(before, await probe.measure())
  return { ms, limits, withoutWindowMs: runWithoutWindow && (await medianMs(runWithoutWindow, maxCalls, budgetMs)) }
}

/** Before and after: a pause of the machine in one of them is no limit. */
function best(one: Limits, other: Limits): Limits {
  return {
    readGbPerSecond: Math.max(one.readGbPerSecond, other.readGbPerSecond),
    fmaGflops: Math.max(one.fmaGflops, other.fmaGflops),
  }
}

async function warmUp(candidate: Candidate, attentionCase: AttentionCase): Promise<void> {
  const small = { ...attentionCase, length: Math.min(warmUpLength, attentionCase.length), window: null }
  const { opened } = await openFastest(candidate, small)
  await opened.run()
  await opened.close()
}

/** Of the types that a contestant can take, the one that suits it best; those that it refuses are passed over. */
async function openFastest(candidate: Candidate, attentionCase: AttentionCase) {
  const dtypes = candidate.dtypes(attentionCase)
  if (dtypes.length === 1) return { opened: await candidate.open(attentionCase, dtypes[0]!), dtype: dtypes[0]! }
  let best: { opened: OpenCandidate; dtype: StorageType; ms: number } | undefined
  let refusal: unknown
  for (const dtype of dtypes) {
    try {
      const opened = await candidate.open(attentionCase, dtype)
      const ms = await medianMs(() => opened.run(), 3, 500)
      const slower = best && best.ms <= ms ? opened : best?.opened
      if (!best || ms < best.ms) best = { opened, dtype, ms }
      await slower?.close()
    } catch (error) {
      refusal = error
    }
  }
  if (!best) throw refusal
  return best
}

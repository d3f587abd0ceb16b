/**
 * Attention of ours and of others on the same numbers, in turns. Each contestant of a case is a process of its own;
 * results are compared first; then there are rounds in which each is timed once, so that all see the same weather.
 * Ratios are medians of the ratios of the rounds.
 */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { checkInteger } from '../../src/tensor/check.ts'
import { Contestant } from '../contestant.ts'
import { describeMachine } from '../machine.ts'
import { defaultCandidates, findCandidate } from './candidates.ts'
import { attentionCases, type CaseOptions, countWork, describeCase } from './cases.ts'
import type { AttentionCase, AttentionReport, CandidateName, CaseReport, Skipped } from './contract.ts'
import type { Reply, Request } from './messages.ts'
import { type Round, summarise, summariseMemory } from './report.ts'
import type { SessionFacts } from './session.ts'

export interface AttentionBenchOptions extends CaseOptions {
  readonly candidates?: readonly CandidateName[]
  /** Rounds (default 5, of `memory` 3). */
  readonly repeat?: number
  readonly signal?: AbortSignal
  /** Steps done of all, and what was measured last. */
  readonly onProgress?: (done: number, total: number, what: string) => void
}

/** For each round and contestant: so long that a pause of the machine is a small part of it. */
const budgets = { quick: 60, full: 400 }
/** Whose call takes longer than this is timed in the first round only. */
const slowMs = 5000
/** Threads of a pool that spin after their work are asleep by then. */
const pauseMs = 30

export async function benchAttention(options: AttentionBenchOptions = {}): Promise<AttentionReport> {
  const cases = attentionCases(options)
  const { phase = 'decode', candidates = defaultCandidates, isQuick = false } = options
  const { repeat = isQuick ? 2 : phase === 'memory' ? 3 : 5 } = options
  checkInteger('bench', 'repeat', repeat, 1)
  for (const name of candidates) findCandidate(name)
  const folder = mkdtempSync(join(tmpdir(), 'kvasir-bench-'))
  const total = cases.length * candidates.length * (phase === 'memory' ? repeat : repeat + 1)
  let done = 0
  const versions: Record<string, string> = { node: process.version }
  const reports: CaseReport[] = []
  try {
    for (const [index, attentionCase] of cases.entries()) {
      const race = new Race(attentionCase, join(folder, `${index}.f32`), options.signal, (steps, name) => {
        done += steps
        options.onProgress?.(done, total, `${describeCase(attentionCase)}: ${name}`)
      })
      const run = phase === 'memory' ? race.weigh(candidates, repeat) : race.time(candidates, repeat, isQuick)
      reports.push(await run.finally(() => race.end()))
      for (const facts of race.facts.values()) Object.assign(versions, facts.versions)
    }
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
  return { machine: describeMachine(), versions, phase, repeat, cases: reports }
}

/** All contestants of one case. */
class Race {
  readonly facts = new Map<CandidateName, SessionFacts>()
  readonly #case: AttentionCase
  readonly #file: string
  readonly #signal: AbortSignal | undefined
  readonly #step: (steps: number, name: string) => void
  readonly #running = new Map<CandidateName, Contestant<Request, Reply>>()
  readonly #skipped: Skipped[] = []

  constructor(
    attentionCase: AttentionCase,
    file: string,
    signal: AbortSignal | undefined,
    step: (steps: number, name: string) => void,
  ) {
    this.#case = attentionCase
    this.#file = file
    this.#signal = signal
    this.#step = step
  }

  async time(candidates: readonly CandidateName[], repeat: number, isQuick: boolean): Promise<CaseReport> {
    for (const name of candidates) {
      await this.#open(name)
      this.#step(this.#running.has(name) ? 1 : repeat + 1, name)
    }
    const rounds: Round[] = []
    for (let round = 0; round < repeat; round++) {
      const results: Round = new Map()
      for (const [name, contestant] of [...this.#running]) {
        this.#step(1, name)
        if (round > 0 && (this.facts.get(name)?.firstMs ?? 0) > slowMs) continue
        await sleep(pauseMs, undefined, { signal: this.#signal })
        const budgetMs = budgets[isQuick ? 'quick' : 'full']
        const reply = await contestant.ask({ kind: 'measure', budgetMs }, this.#signal)
        if (reply.kind === 'measured') results.set(name, reply)
        else if (reply.kind === 'skipped') await this.#skip(name, reply.reason)
      }
      rounds.push(results)
    }
    return {
      ...this.#case,
      ...countWork(this.#case),
      ...summarise(this.#case, this.facts, rounds),
      skipped: this.#skipped,
    }
  }

  /** Memory: a new process each time, since what a call took may stay with the process. */
  async weigh(candidates: readonly CandidateName[], repeat: number): Promise<CaseReport> {
    const bytes = new Map<CandidateName, number[]>()
    for (const name of candidates) {
      for (let round = 0; round < repeat && !this.#skipped.some(({ candidate }) => candidate === name); round++) {
        await this.#open(name)
        const scratch = this.#running.has(name) ? this.facts.get(name)?.scratchBytes : undefined
        if (scratch !== undefined) bytes.set(name, [...(bytes.get(name) ?? []), scratch])
        await this.end()
      }
      this.#step(repeat, name)
    }
    const memory = summariseMemory(this.facts, bytes)
    const { heads, length } = this.#case
    const scoreBytes = 4 * heads * length * length
    return { ...this.#case, ...countWork(this.#case), results: [], memory, scoreBytes, skipped: this.#skipped }
  }

  async #open(name: CandidateName): Promise<void> {
    const contestant = new Contestant<Request, Reply>(import.meta.url)
    this.#running.set(name, contestant)
    const request = { kind: 'open', candidate: name, attentionCase: this.#case, file: this.#file } as const
    const reply = await contestant.ask(request, this.#signal)
    if (reply.kind === 'opened') this.facts.set(name, reply)
    else if (reply.kind === 'skipped') await this.#skip(name, reply.reason)
  }

  async #skip(name: CandidateName, reason: string): Promise<void> {
    this.#skipped.push({ candidate: name, skipped: reason })
    this.facts.delete(name)
    await this.#running.get(name)?.close()
    this.#running.delete(name)
  }

  async end(): Promise<void> {
    await Promise.all([...this.#running.values()].map((contestant) => contestant.close()))
    this.#running.clear()
  }
}

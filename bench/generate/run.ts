/**
 * Whole models of random numbers, ours beside the uncut graph in onnxruntime-node, from the same file. What they compute
 * is compared first; then there are rounds in which each candidate of a case has one process, one after the other: the
 * machine and its memory belong to one at a time, and load times and peaks are of processes that did nothing else.
 */
import { exportDtypes } from '../../src/onnx/index.ts'
import { askOnce } from '../contestant.ts'
import { describeMachine } from '../machine.ts'
import { agree, comparedOf } from './agree.ts'
import type { OpenOptions } from './candidate.ts'
import type {
  CandidateName,
  CaseReport,
  GenerateReport,
  GenerateTask,
  ModelReport,
  ShapeName,
  Skipped,
  WeightType,
} from './contract.ts'
import type { Answer, Request, Task, Visitor } from './messages.ts'
import { type BenchModel, prepareGguf, prepareModel } from './models.ts'
import { findPeer, installPeer } from './peers.ts'
import { candidatesOf, type GenerateBenchOptions, neededBytes, type Plan, planBench, roomOf } from './plan.ts'
import { type Measurement, type Round, summarise, summariseLoad } from './report.ts'

type RunOptions = Omit<OpenOptions, 'room'>

export async function benchGenerate(options: GenerateBenchOptions = {}): Promise<GenerateReport> {
  const planned = planBench(options)
  const isMissing = planned.candidates.includes(peer) && !(await findPeer())
  const isAbsent = isMissing && options.installsPeers !== true
  const plan = isAbsent ? { ...planned, candidates: planned.candidates.filter((name) => name !== peer) } : planned
  const bench = new Bench(plan, options, isMissing && !isAbsent)
  await bench.install()
  const models: ModelReport[] = []
  for (const shape of plan.shapes) for (const weights of plan.weights) models.push(await bench.run(shape, weights))
  const { threads, window, repeat } = plan
  const { versions, descriptions } = bench
  const absent = isAbsent ? [{ candidate: peer, skipped: peerHint }] : []
  return { machine: describeMachine(), versions, descriptions, threads, window, repeat, absent, models }
}

const peer = 'node-llama-cpp' as const satisfies CandidateName
const peerHint = 'not installed; --peers installs it in the cache folder (85 MB)'

class Bench {
  readonly versions: Record<string, string> = { node: process.version }
  readonly descriptions: Record<string, string> = {}
  readonly #plan: Plan
  readonly #options: GenerateBenchOptions
  readonly #total: number
  readonly #installs: boolean
  #done = 0

  constructor(plan: Plan, options: GenerateBenchOptions, installs: boolean) {
    this.#installs = installs
    this.#plan = plan
    this.#options = options
    const { shapes, weights, tasks, candidates, repeat } = plan
    const visits = tasks.reduce((sum, task) => sum + candidatesOf(task, candidates).length * repeat, 0)
    const compared = weights.map((type) => (type === 'f32' ? 1 : 2) + comparedOf(plan).length)
    const steps = shapes.length * compared.reduce((sum, count) => sum + 1 + count + visits, 0)
    this.#total = installs ? steps + 1 : steps
  }

  async install(): Promise<void> {
    if (!this.#installs) return
    this.#step(`installing ${peer}`)
    await installPeer(this.#options.signal)
  }

  async run(shape: ShapeName, weights: WeightType): Promise<ModelReport> {
    const title = `${shape} ${weights}`
    this.#step(`${title}: writing the model`)
    const model = await prepareModel(shape, weights, this.#options.signal)
    const { threads, window, candidates } = this.#plan
    const gguf = candidates.includes(peer) ? await prepareGguf(shape, weights) : undefined
    const { folder, file, parameters, fileBytes } = model
    const options = { folder, file, dtype: exportDtypes[weights].name, threads, window, ...(gguf && { gguf }) }
    const agreed = await agree({
      ...{ candidates, weights, window },
      visit: (visitor, task) => {
        this.#step(`${title}: comparing ${visitor}`)
        return this.#visit(visitor, options, task)
      },
    })
    const cases: CaseReport[] = []
    const rounds: Round[] = []
    for (const task of this.#plan.tasks) {
      const race = await this.#race(title, options, task, (name) => this.#missing(name, task, shape, model))
      cases.push({ ...task, results: summarise(race.rounds), skipped: race.skipped })
      rounds.push(...race.rounds)
    }
    const common = { shape, weights, parameters, fileBytes }
    return { ...common, agreement: agreed, load: summariseLoad(rounds), cases }
  }

  async #race(
    title: string,
    options: RunOptions,
    task: GenerateTask,
    missing: (name: CandidateName) => string | undefined,
  ): Promise<{ rounds: Round[]; skipped: Skipped[] }> {
    const { repeat, budgetMs, candidates } = this.#plan
    const skipped = new Map<CandidateName, string>()
    const rounds: Round[] = []
    for (let round = 0; round < repeat; round++) {
      const results = new Map<CandidateName, Measurement>()
      for (const name of candidatesOf(task, candidates)) {
        this.#step(`${title}: ${task.kind} ${task.tokens}, ${name}`)
        const reason = skipped.get(name) ?? missing(name)
        const answer = reason
          ? ({ kind: 'skipped', reason } as const)
          : await this.#visit(name, options, { ...task, budgetMs })
        if (answer.kind === 'measured') results.set(name, answer)
        else if (answer.kind === 'skipped') skipped.set(name, answer.reason)
      }
      rounds.push(results)
    }
    return { rounds, skipped: [...skipped].map(([candidate, reason]) => ({ candidate, skipped: reason })) }
  }

  async #visit(candidate: Visitor, options: RunOptions, task: Task) {
    const request = { candidate, options: { ...options, room: roomOf(task) }, task }
    const answer = await askOnce<Request, Answer>(import.meta.url, request, this.#options.signal)
    if (answer.kind !== 'skipped' && candidate !== 'reference') this.#note(candidate, answer)
    return answer
  }

  #note(candidate: CandidateName, { versions, description }: Answer): void {
    Object.assign(this.versions, versions)
    this.descriptions[candidate] = description
  }

  /** A process that takes more memory than there is takes others with it: better not to start it. */
  #missing(
    candidate: CandidateName,
    task: GenerateTask,
    shape: ShapeName,
    { fileBytes }: BenchModel,
  ): string | undefined {
    const needed = neededBytes(candidate, task, { shape, fileBytes, window: this.#plan.window })
    const available = process.availableMemory()
    if (needed <= available) return undefined
    const gibibytes = (bytes: number) => (bytes / 2 ** 30).toFixed(1)
    return `would need ${gibibytes(needed)} GiB of memory, ${gibibytes(available)} are free`
  }

  #step(what: string): void {
    this.#options.onProgress?.(this.#done++, this.#total, what)
  }
}

/**
 * Whole models of random numbers, ours beside the uncut graph in onnxruntime-node, from the same file. What they compute
 * is compared first; then there are rounds in which each candidate of a case has one process, one after the other: the
 * machine and its memory belong to one at a time, and load times and peaks are of processes that did nothing else.
 */
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { exportDtypes } from '../../src/onnx/index.ts'
import { KvasirError } from '../../src/tensor/error.ts'
import { askOnce } from '../contestant.ts'
import { describeMachine } from '../machine.ts'
import { checkAgreement, tolerances } from './agreement.ts'
import type { OpenOptions } from './candidate.ts'
import type {
  Agreement,
  CandidateName,
  CaseReport,
  GenerateReport,
  GenerateTask,
  ModelReport,
  ShapeName,
  Skipped,
  WeightType,
} from './contract.ts'
import type { Answer, Request, Task } from './messages.ts'
import { type BenchModel, prepareModel } from './models.ts'
import { candidatesOf, type GenerateBenchOptions, neededBytes, type Plan, planBench } from './plan.ts'
import { type Measurement, type Round, summarise, summariseLoad } from './report.ts'

/** Tokens that are read, then chosen one by one, before anything is timed. */
const agreement = { prompt: 48, steps: 16 }

export async function benchGenerate(options: GenerateBenchOptions = {}): Promise<GenerateReport> {
  const plan = planBench(options)
  const bench = new Bench(plan, options)
  const models: ModelReport[] = []
  for (const shape of plan.shapes) for (const weights of plan.weights) models.push(await bench.run(shape, weights))
  const { threads, window, repeat } = plan
  const { versions, descriptions } = bench
  return { machine: describeMachine(), versions, descriptions, threads, window, repeat, models }
}

class Bench {
  readonly versions: Record<string, string> = { node: process.version }
  readonly descriptions: Record<string, string> = {}
  readonly #plan: Plan
  readonly #options: GenerateBenchOptions
  readonly #total: number
  #done = 0

  constructor(plan: Plan, options: GenerateBenchOptions) {
    this.#plan = plan
    this.#options = options
    const visits = plan.tasks.reduce((sum, task) => sum + candidatesOf(task).length * plan.repeat, 0)
    this.#total = plan.shapes.length * plan.weights.length * (1 + agreeing.length + visits)
  }

  async run(shape: ShapeName, weights: WeightType): Promise<ModelReport> {
    const title = `${shape} ${weights}`
    this.#step(`${title}: writing the model`)
    const model = await prepareModel(shape, weights, this.#options.signal)
    const { threads, window } = this.#plan
    const { folder, file, parameters, fileBytes } = model
    const options = { folder, file, dtype: exportDtypes[weights].name, threads, window }
    const agreed = await this.#agree(title, options, tolerances[weights])
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

  async #agree(title: string, options: OpenOptions, tolerance: number): Promise<Agreement[]> {
    const temporary = mkdtempSync(join(tmpdir(), 'kvasir-bench-'))
    const file = join(temporary, 'logits.f32')
    const choose = async (candidate: CandidateName, tokens?: readonly number[]) => {
      this.#step(`${title}: comparing ${candidate}`)
      const task = { kind: 'agree', ...agreement, file, ...(tokens && { tokens }) } as const
      const answer = await this.#visit(candidate, options, task)
      if (answer.kind === 'agreed') return { tokens: answer.tokens, logits: readFloats(file) }
      const reason = answer.kind === 'skipped' ? answer.reason : answer.kind
      throw new KvasirError('internal', 'bench', `${candidate} can't run this model: ${reason}`)
    }
    try {
      const [first, ...others] = agreeing
      const expected = await choose(first)
      const found: Agreement[] = []
      for (const candidate of others) {
        const needed = agreement.prompt + agreement.steps
        // A window that is shorter than the text is no longer the same model.
        if (candidate === 'kvasir-window' && options.window < needed) continue
        found.push(checkAgreement(candidate, await choose(candidate, expected.tokens), expected, tolerance))
      }
      return found
    } finally {
      rmSync(temporary, { recursive: true, force: true })
    }
  }

  async #race(
    title: string,
    options: OpenOptions,
    task: GenerateTask,
    missing: (name: CandidateName) => string | undefined,
  ): Promise<{ rounds: Round[]; skipped: Skipped[] }> {
    const { repeat, budgetMs } = this.#plan
    const skipped = new Map<CandidateName, string>()
    const rounds: Round[] = []
    for (let round = 0; round < repeat; round++) {
      const results = new Map<CandidateName, Measurement>()
      for (const name of candidatesOf(task)) {
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

  async #visit(candidate: CandidateName, options: OpenOptions, task: Task) {
    const answer = await askOnce<Request, Answer>(import.meta.url, { candidate, options, task }, this.#options.signal)
    if (answer.kind !== 'skipped') this.#note(candidate, answer)
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

/** The first is what the others are held to. */
const agreeing = ['onnxruntime', 'kvasir', 'kvasir-window'] as const satisfies CandidateName[]

function readFloats(file: string): Float32Array {
  const { buffer, byteOffset, byteLength } = readFileSync(file)
  return new Float32Array(buffer, byteOffset, byteLength / 4)
}

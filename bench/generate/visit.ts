/** What one process does: loads a model, does one task with it, says how long it took and what memory it needed. */
import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import { KvasirError } from '../../src/tensor/error.ts'
import { median } from '../measure.ts'
import type { OpenModel, OpenOptions } from './candidate.ts'
import type { CandidateName, GenerateTask } from './contract.ts'
import type { Answer, Task } from './messages.ts'
import { openOurs } from './ours.ts'
import { chunkSize } from './plan.ts'
import { openStock } from './stock.ts'

const open = {
  kvasir: (options) => openOurs('full', options),
  'kvasir-window': (options) => openOurs('window', options),
  onnxruntime: (options) => openStock(options),
  'onnxruntime-chunks': (options) => openStock(options, chunkSize),
} as const satisfies Record<CandidateName, (options: OpenOptions) => Promise<OpenModel>>

export async function visit(candidate: CandidateName, options: OpenOptions, task: Task): Promise<Answer> {
  const started = performance.now()
  const model = await open[candidate](options)
  const loadMs = performance.now() - started
  const facts = { description: model.description, versions: model.versions, loadMs }
  if (task.kind === 'agree') {
    const chosen = await follow(model, task)
    return { kind: 'agreed', ...facts, ...chosen }
  }
  const ms = await (task.kind === 'decode' ? decodeMs(model, task) : prefillMs(model, task))
  return { kind: 'measured', ...facts, ms, peakBytes: peakBytes() }
}

/** Steps of a decode before those that count, and how many these are at least and at most. */
const [warmUp, fewest, most] = [4, 3, 24]

/** Contexts grow from step to step, up to `tokens`. */
async function decodeMs(model: OpenModel, { tokens, budgetMs }: GenerateTask & { budgetMs: number }): Promise<number> {
  await model.feed(promptOf(8))
  fillWith(model, Math.max(1, tokens - warmUp - most))
  const times: number[] = []
  const started = performance.now()
  for (let step = 0; step < warmUp + most; step++) {
    const isEnough = times.length >= fewest && performance.now() - started > budgetMs
    if (isEnough) break
    // What the step before left behind is cleared away outside the measurement.
    globalThis.gc?.()
    const before = performance.now()
    await model.feed([step % 256])
    if (step >= warmUp) times.push(performance.now() - before)
  }
  return median(times)
}

/** A cache that is shorter than it should be would be fast. */
function fillWith(model: OpenModel, tokens: number): void {
  model.fill(tokens)
  if (model.held() === tokens) return
  throw new KvasirError('internal', 'bench', `expected a sequence of ${tokens} tokens, got ${model.held()}`)
}

async function prefillMs(model: OpenModel, { tokens }: GenerateTask): Promise<number> {
  await model.feed(promptOf(8))
  fillWith(model, 0)
  globalThis.gc?.()
  const before = performance.now()
  await model.feed(promptOf(tokens))
  return performance.now() - before
}

/** Reads a prompt, then the given tokens, or where there are none those that it likes best. */
async function follow(model: OpenModel, { prompt, steps, tokens, file }: Extract<Task, { kind: 'agree' }>) {
  const chosen: number[] = []
  const all: Float32Array[] = []
  let next = promptOf(prompt)
  for (let step = 0; step < steps; step++) {
    const logits = await model.feed(next)
    all.push(logits.slice())
    chosen.push(indexOfLargest(logits))
    next = [tokens?.[step] ?? chosen[step]!]
  }
  writeFileSync(file, Buffer.concat(all.map(({ buffer }) => new Uint8Array(buffer))))
  return { tokens: chosen }
}

function promptOf(tokens: number): number[] {
  return Array.from({ length: tokens }, (_, i) => (i * 89 + 7) % 256)
}

function indexOfLargest(values: Float32Array): number {
  let best = 0
  for (let i = 1; i < values.length; i++) if (values[i]! > values[best]!) best = i
  return best
}

const status = '/proc/self/status'

/** Of this process. Linux counts in `maxRSS` what its parent held when it was started, so there the kernel is asked. */
function peakBytes(): number {
  if (!existsSync(status)) return process.resourceUsage().maxRSS * 1024
  return Number(/^VmHWM:\s+(\d+) kB/m.exec(readFileSync(status, 'utf8'))?.[1]) * 1024
}

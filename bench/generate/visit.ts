/** What one process does: loads a model, does one task with it, says how long it took and what memory it needed. */
import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import { KvasirError } from '../../src/tensor/error.ts'
import { median } from '../measure.ts'
import type { OpenModel, OpenOptions } from './candidate.ts'
import type { GenerateTask } from './contract.ts'
import { openLlama } from './llama.ts'
import type { Answer, Task, Visitor } from './messages.ts'
import { openOurs } from './ours.ts'
import { chunkSize, greeting, stepCounts } from './plan.ts'
import { openReference, openStock } from './stock.ts'

const open = {
  kvasir: (options) => openOurs('full', options),
  'kvasir-window': (options) => openOurs('window', options),
  onnxruntime: (options) => openStock(options),
  'onnxruntime-chunks': (options) => openStock(options, { chunkSize }),
  'node-llama-cpp': openLlama,
  reference: openReference,
} as const satisfies Record<Visitor, (options: OpenOptions) => Promise<OpenModel>>

export async function visit(candidate: Visitor, options: OpenOptions, task: Task): Promise<Answer> {
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

/** Contexts grow from step to step, up to `tokens`. */
async function decodeMs(model: OpenModel, { tokens, budgetMs }: GenerateTask & { budgetMs: number }): Promise<number> {
  const advance = advanceOf(model)
  const { warmUp, fewest, most } = stepCounts
  await model.feed(promptOf(greeting))
  await fillWith(model, Math.max(1, tokens - warmUp - most))
  const times: number[] = []
  const started = performance.now()
  for (let step = 0; step < warmUp + most; step++) {
    const isEnough = times.length >= fewest && performance.now() - started > budgetMs
    if (isEnough) break
    // What the step before left behind is cleared away outside the measurement.
    globalThis.gc?.()
    const before = performance.now()
    await advance([step % 256])
    if (step >= warmUp) times.push(performance.now() - before)
  }
  return median(times)
}

/** A cache that is shorter than it should be would be fast. */
async function fillWith(model: OpenModel, tokens: number): Promise<void> {
  await model.fill(tokens)
  if (model.held() === tokens) return
  throw new KvasirError('internal', 'bench', `expected a sequence of ${tokens} tokens, got ${model.held()}`)
}

async function prefillMs(model: OpenModel, { tokens }: GenerateTask): Promise<number> {
  const advance = advanceOf(model)
  await model.feed(promptOf(greeting))
  await fillWith(model, 0)
  globalThis.gc?.()
  const before = performance.now()
  await advance(promptOf(tokens))
  return performance.now() - before
}

function advanceOf(model: OpenModel): (tokens: readonly number[]) => Promise<unknown> {
  return (tokens) => (model.advance ? model.advance(tokens) : model.feed(tokens))
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

/** node-llama-cpp over the same weights as GGUF. */
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { KvasirError } from '../../src/tensor/error.ts'
import type { OpenModel, OpenOptions } from './candidate.ts'
import { writeLongState } from './llama-state.ts'
import { findPeer } from './peers.ts'

/** What is used of its types. */
interface Library {
  getLlama(options: object): Promise<{ loadModel(options: object): Promise<Model> }>
}

interface Model {
  createContext(options: object): Promise<{ getSequence(): Sequence }>
}

type Item = number | [token: number, options: object]

interface Sequence {
  readonly nextTokenIndex: number
  controlledEvaluate(items: Item[]): Promise<({ next?: { logits?: ReadonlyMap<number, number> } } | undefined)[]>
  clearHistory(): Promise<void>
  saveStateToFile(file: string): Promise<unknown>
  loadStateFromFile(file: string, options: object): Promise<void>
}

/** @throws KvasirError `not-found` where it is not installed */
export async function openLlama({ gguf, room, threads }: OpenOptions): Promise<OpenModel> {
  const peer = await findPeer()
  if (!peer || gguf === undefined) throw new KvasirError('not-found', 'bench', 'expected node-llama-cpp, got none')
  const { getLlama } = (await import(peer.url)) as Library
  const { version } = JSON.parse(readFileSync(peer.packageFile, 'utf8')) as { version: string }
  const llama = await getLlama({
    gpu: false,
    build: 'never',
    skipDownload: true,
    maxThreads: threads,
    logLevel: 'error',
  })
  const model = await llama.loadModel({ modelPath: gguf, gpuLayers: 0 })
  const own = { contextSize: room, batchSize: 512, flashAttention: true, threads: { ideal: threads, min: threads } }
  const sequence = (await model.createContext(own)).getSequence()
  const evaluate = async (tokens: readonly number[], wanted: object) => {
    const last = tokens.at(-1)!
    const options = { generateNext: { token: true, options: { temperature: 0 }, ...wanted } }
    return (await sequence.controlledEvaluate([...tokens.slice(0, -1), [last, options]])).at(-1)?.next
  }
  return {
    description: `node-llama-cpp ${version}, flash attention, K and V in f16`,
    versions: { 'node-llama-cpp': version },
    fill: (tokens) => fill(sequence, tokens),
    held: () => sequence.nextTokenIndex,
    async feed(tokens) {
      const logits = (await evaluate(tokens, { logits: true }))?.logits
      const row = new Float32Array(logits?.size ?? 0)
      for (const [token, logit] of logits ?? []) row[token] = logit
      return row
    },
    async advance(tokens) {
      await evaluate(tokens, {})
    },
  }
}

async function fill(sequence: Sequence, tokens: number): Promise<void> {
  const temporary = mkdtempSync(join(tmpdir(), 'kvasir-bench-'))
  const [short, long] = [join(temporary, 'short'), join(temporary, 'long')]
  try {
    await sequence.clearHistory()
    if (tokens === 0) return
    await sequence.controlledEvaluate([1, 2, 3, 4])
    await sequence.saveStateToFile(short)
    writeLongState(readFileSync(short), tokens, long)
    await sequence.loadStateFromFile(long, { acceptRisk: true })
  } finally {
    rmSync(temporary, { recursive: true, force: true })
  }
}

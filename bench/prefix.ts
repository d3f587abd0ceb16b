/**
 * Time to the first token of a prompt whose beginning was read before: computed again, out of RAM, disk and Redis.
 *
 * The clock runs from the call of `generate` with token ids until the result with one token is there, in the caller's
 * thread: finding the beginning, taking it over, reading what is new, one token drawn, and the way to the model's thread
 * and back. Tokenizing is on no side: it is the same for all. Models are warm: prompts that count for nothing come first
 * on every side, since code that runs for the first time would be most of the time of a reuse.
 */
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type CausalLM, type LoadOptions, loadModel } from '../src/index.ts'
import { KvasirError } from '../src/tensor/error.ts'
import { median } from './measure.ts'
import { drawPanels } from './panels.ts'

export const prefixSources = ['computed', 'ram', 'disk', 'redis'] as const
export type PrefixSource = (typeof prefixSources)[number]

export interface PrefixRow {
  readonly source: PrefixSource
  /** Tokens that the prompt has in common with one before, and those that come after. */
  readonly prefixTokens: number
  readonly newTokens: number
  readonly reusedTokens: number
  /** Until the first token is there, median of the rounds. */
  readonly firstTokenMs: number
  /** Time when all is computed over this one. */
  readonly speedup: number
}

export interface PrefixBenchOptions {
  readonly path: string
  readonly load: LoadOptions
  /** Lengths of the common beginning. */
  readonly tokens: readonly number[]
  readonly newTokens: number
  readonly rounds: number
  /** A server that may be written to; none: the row is left out. */
  readonly redis?: string | undefined
  readonly signal?: AbortSignal
  readonly onProgress?: () => void
}

const tierBytes = 4 * 2 ** 30
const warmUps = 10
const warmUpTokens = 1024

/** @throws KvasirError `internal` when a beginning is not found again, or with it the first token is another */
export async function benchPrefix(options: PrefixBenchOptions): Promise<PrefixRow[]> {
  const folder = await mkdtemp(join(tmpdir(), 'kvasir-prefix-'))
  const rows: PrefixRow[] = []
  const firstTokens = new Map<string, number>()
  try {
    for (const source of prefixSources) {
      if (source === 'redis' && options.redis === undefined) continue
      const prefixCache = tiersOf(source, folder, options.redis)
      const load = { ...options.load, ...(prefixCache && { prefixCache }) }
      // Disk and Redis have everything when the model that put it there is gone.
      if (source === 'disk' || source === 'redis') {
        await withModel(options.path, load, (model) => readOnce(model, source, options))
      }
      await withModel(options.path, load, async (model) => {
        if (source !== 'disk' && source !== 'redis') await readOnce(model, source, options)
        for (const tokens of options.tokens) {
          rows.push(await measure(model, { source, tokens, rows, firstTokens }, options))
          options.onProgress?.()
        }
      })
    }
  } finally {
    await rm(folder, { recursive: true, force: true })
  }
  return rows
}

async function withModel(path: string, load: LoadOptions, use: (model: CausalLM) => Promise<void>): Promise<void> {
  const model = await loadModel(path, load)
  try {
    await use(model)
  } finally {
    await model.dispose()
  }
}

/** Reads the beginnings where they are to be kept; where all is computed, as much as warms up. */
async function readOnce(model: CausalLM, source: PrefixSource, options: PrefixBenchOptions): Promise<void> {
  for (const tokens of options.tokens) {
    const prompt = promptOf(model, tokens, options.newTokens, 0)
    const part = source === 'computed' ? prompt.slice(0, warmUpTokens) : prompt
    await model.generate(part, { maxNewTokens: 1, signal: options.signal })
  }
}

/** One tier alone, so that nothing faster stands before it. */
function tiersOf(source: PrefixSource, folder: string, redis = ''): LoadOptions['prefixCache'] {
  const salt = folder // nothing of an earlier run is found
  if (source === 'computed') return undefined
  if (source === 'ram') return { salt, ram: tierBytes }
  if (source === 'disk') return { salt, ram: 0, disk: { path: folder, maxBytes: tierBytes, maxQueuedBytes: tierBytes } }
  return { salt, ram: 0, redis: { url: redis, maxQueuedBytes: tierBytes, ttlSeconds: 600 } }
}

interface Case {
  readonly source: PrefixSource
  readonly tokens: number
  readonly rows: readonly PrefixRow[]
  /** By length and round, of those that were computed. */
  readonly firstTokens: Map<string, number>
}

async function measure(
  model: CausalLM,
  { source, tokens, rows, firstTokens }: Case,
  { newTokens, rounds, signal }: PrefixBenchOptions,
): Promise<PrefixRow> {
  const times: number[] = []
  let reusedTokens = 0
  for (let round = source === 'computed' ? 1 : 1 - warmUps; round <= rounds; round++) {
    const prompt = promptOf(model, tokens, newTokens, round)
    const start = performance.now()
    const result = await model.generate(prompt, { maxNewTokens: 1, ignoreEos: true, temperature: 0, signal })
    const time = performance.now() - start
    if (signal?.aborted) throw new KvasirError('aborted', 'bench', 'interrupted')
    if (round < 1) continue
    times.push(time)
    reusedTokens = result.reusedTokens
    const [first = -1, name] = [result.tokens[0], `${tokens} ${round}`]
    if (source === 'computed') firstTokens.set(name, first)
    else if (reusedTokens === 0 || firstTokens.get(name) !== first) {
      const got = `${first} with ${reusedTokens} tokens reused`
      throw new KvasirError(
        'internal',
        'bench',
        `expected the first token ${firstTokens.get(name)}, got ${got} (${source})`,
      )
    }
  }
  const firstTokenMs = median(times)
  const computed = rows.find((row) => row.source === 'computed' && row.prefixTokens === tokens)
  return {
    ...{ source, prefixTokens: tokens, newTokens, reusedTokens, firstTokenMs },
    speedup: (computed?.firstTokenMs ?? firstTokenMs) / firstTokenMs,
  }
}

/** Prompts of one length begin alike and end each in its own way. */
function promptOf({ vocabSize }: CausalLM, tokens: number, newTokens: number, round: number): number[] {
  return Array.from({ length: tokens + newTokens }, (_, i) => {
    return (i * 7919 + (i < tokens ? tokens : 104_729 * (round + 1))) % vocabSize
  })
}

/** The picture as SVG text: ms until the first token over the length of what is common. */
export async function plotPrefix(title: string, rows: readonly PrefixRow[]): Promise<string> {
  const lines = [...new Set(rows.map(({ source }) => source))].map((name) => {
    const own = rows.filter(({ source }) => source === name)
    return { name, data: own.map(({ prefixTokens, firstTokenMs }) => [prefixTokens, firstTokenMs] as const) }
  })
  const lengths = rows.map(({ prefixTokens }) => prefixTokens)
  const range = { min: Math.min(...lengths), max: Math.max(...lengths) }
  return await drawPanels([{ title, lines, range }], { x: 'tokens in common', y: 'ms to the first token' })
}

/** `/stats` of `kvasir chat`, with the bundled model and everything that it can tell of. */
import { expect, test } from 'vitest'
import { loadModel } from '../runtime/index.ts'
import { statsText } from './chat-stats.ts'
import { runCaptured } from './testing/captured.ts'

const text = 'Mara put the brass key in the blue drawer. The sky was grey over the hills. '.repeat(12)

async function stats(flags: string): Promise<string> {
  const { code, stderr } = await runCaptured(['chat', '--json', '--max-tokens', '4', ...flags.split(' ')], {
    loadModel: (path, options) => loadModel(path, { ...options, worker: false, threads: 1 }),
    stdin: (async function* () {
      yield `${text}\nWhere is the brass key?\n/stats\n`
    })(),
  })
  expect(code).toBe(0)
  return stderr.replace(/\n$/, '')
}

test('what is kept, evicted, recalled, found in tiers and shared, each on a line of its own', async () => {
  const flags = '--policy streaming --window 32 --sinks 2 --kv-dtype-k int8 --kv-dtype-v f16 --recall 2'
  const lines = (await stats(`${flags} --kv-tier ram:1MiB --prefix-cache`)).split('\n')
  expect(lines.map((line) => /^(\S+( \S+)*) {2}/.exec(line)?.[1])).toEqual([
    ...['last turn', 'policy', 'K and V', 'KV cache', 'kept', 'evicted', 'recalled', 'tiers', 'prefixes'],
  ])
  const of = (name: string) => lines.find((line) => line.startsWith(name))?.slice('last turn  '.length)
  expect(of('last turn')).toMatch(/^read \d+ of \d+ tokens at [\d,]+ a second, wrote \d at [\d,]+ a second$/)
  expect(of('policy')).toBe('streaming, window 32, sinks 2, recall 2, original positions')
  expect(of('K and V')).toBe('int8 and f16')
  expect(of('KV cache')).toMatch(/^[\d.]+ KiB for 32 of \d+ tokens \(all of them: [\d.]+ [KM]iB\)$/)
  expect(of('kept')).toBe('32 by each head')
  expect(of('evicted')).toMatch(/^\d+ tokens at least by each head$/)
  expect(of('recalled')).toMatch(/^[1-9]\d* times a page of a head, 0 missing; \d+ pages remembered$/)
  expect(of('tiers')).toMatch(/^ram [\d.]+ KiB, (\d+) of \1 found$/)
  expect(of('prefixes')).toMatch(/tokens reused in \d of \d prompts?;/)
})

test('nothing is said of what there is not, and layers that differ are told apart', async () => {
  const lines = (await stats('--policy full')).split('\n')
  expect(lines.map((line) => line.split('  ')[0])).toEqual(['last turn', 'policy', 'K and V', 'KV cache', 'kept'])
  const layer = (...counts: number[]) => ({
    heads: counts.map((count) => ({ positions: Array.from({ length: count }, (_, n) => n), scores: [] })),
    evicted: [],
  })
  const info = { keptTokens: 9, seenTokens: 1200, capacityUtilization: 1, bytes: 10, fullBytes: 1300, evictedTokens: 0 }
  const report = { info, layers: [layer(9, 9), layer(9, 9), layer(4, 7), layer(5)] }
  const options = { policy: 'adakv', window: 9, positions: 'rank', kvBudget: 2 ** 20 } as const
  expect(statsText({ last: undefined, options, report, prefixes: undefined }).split('\n')).toEqual([
    'policy    adakv, window 9, budget 1.00 MiB, rank positions',
    'K and V   f32',
    'KV cache  10 B for 9 of 1,200 tokens (all of them: 1.27 KiB)',
    'kept      layers 0 to 1: 9; layer 2: 4 to 7; layer 3: 5',
  ])
})

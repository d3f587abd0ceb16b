/** Saved caches on the command line, with the bundled model: chat, generate and inspect. */
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { loadModel } from '../runtime/index.ts'
import { picture, rangesOf } from './cache-report.ts'
import { runCaptured } from './testing/captured.ts'

let folder = ''
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'kvasir-saved-'))
})
afterAll(() => rm(folder, { recursive: true }))

/** In this thread: a thread of the model's own compiles everything again, and `saved-caches.test.ts` has one. */
const kvasir = (words: readonly string[], lines: readonly string[] = []) =>
  runCaptured(words, {
    stdin: (async function* () {
      yield lines.map((line) => `${line}\n`).join('')
    })(),
    loadModel: (path, options) => loadModel(path, { worker: false, threads: 1, ...options }),
  })

const story = 'Mara put the brass key in the blue drawer. The sky was grey over the hills.'
const question = '\nWhere is the brass key?'

test('chat: after /load nothing is read again', async () => {
  const file = join(folder, 'talk.json')
  const chat = async (...lines: string[]) => {
    const { stdout, stderr } = await kvasir(['chat', '--json', '--max-tokens', '12'], lines)
    return { stderr, turns: JSON.parse(stdout).turns as Record<'promptTokens' | 'reusedTokens' | 'text', never>[] }
  }
  const first = await chat(story, `/save ${file}`, 'Where is the brass key?')
  expect(first.stderr).toMatch(/2 messages in .*talk\.json, the cache in .*talk\.json\.cache \(/)
  const second = await chat(`/load ${file}`, 'Where is the brass key?')
  expect(second.stderr).toMatch(/2 messages from .*talk\.json; the cache holds \d+ tokens/)
  expect(second.turns[0]!.reusedTokens).toBeGreaterThan(15)
  const { promptTokens, reusedTokens, text } = first.turns[1]!
  expect(second.turns[0]).toMatchObject({ promptTokens, reusedTokens, text })

  const cache = await readFile(`${file}.cache`)
  await writeFile(`${file}.cache`, cache.subarray(0, 1000))
  const torn = await chat(`/load ${file}`, 'Where is the brass key?')
  expect(torn.stderr).toMatch(/2 messages .* it will be read again: .*the file is not whole/)
  expect(torn.turns[0]).toMatchObject({ promptTokens, reusedTokens: 0 })
  await rm(`${file}.cache`)
  expect((await chat(`/load ${file}`)).stderr).toMatch(/2 messages from .*; it will be read again$/m)
})

test('generate goes on after a saved cache, which inspect shows', async () => {
  const file = join(folder, 'story.cache')
  const written = await kvasir([
    'generate',
    '--prompt',
    story,
    '--max-tokens',
    '1',
    '--window',
    '12',
    '--save-cache',
    file,
  ])
  expect(written.code).toBe(0)
  const read = await kvasir(['generate', '--prompt', question, '--load-cache', file, '--max-tokens', '12', '--json'])
  expect(JSON.parse(read.stdout).kv).toMatchObject({ keptTokens: 12 })
  expect(JSON.parse(read.stdout).kv.seenTokens).toBeGreaterThan(JSON.parse(read.stdout).promptTokens + 12)
  const refused = await kvasir(['generate', '--prompt', question, '--load-cache', file, '--policy', 'streaming'])
  expect(refused).toMatchObject({ code: 2, stderr: expect.stringMatching(/policy "streaming", got "linear"/) })

  const { stdout } = await kvasir(['inspect', '--cache', file, '--json'])
  const { caches, model, bytes } = JSON.parse(stdout)
  expect([caches.length, model.architecture, bytes]).toEqual([1, 'doge', (await readFile(file)).length])
  expect(caches[0]).toMatchObject({ options: { policy: 'linear', window: 12 }, keptTokens: 12 })
  expect(caches[0].tokens.length).toBe(caches[0].seenTokens)
  for (const { heads, evicted } of caches[0].layers) {
    for (const { kept, ranges } of heads) {
      expect(kept).toBe(12)
      expect(ranges.reduce((sum: number, [first, last]: number[]) => sum + last! - first! + 1, 0)).toBe(12)
    }
    expect(evicted.length).toBe(2 * (caches[0].seenTokens - 12))
  }
  const text = (await kvasir(['inspect', '--cache', file])).stdout
  expect(text).toMatch(/1 cache of doge [0-9a-f]{32}/)
  expect(text).toMatch(/12 of \d+ tokens/)
  expect(text).toMatch(/·+[░▒▓█]/)
  expect(text).toMatch(/left layer \d head \d after \d+ tokens: position \d+/)
  expect((await kvasir(['inspect', 'a-model', '--cache', file])).stderr).toMatch(/a model or --cache, got both/)
  expect((await kvasir(['inspect', '--cache', join(folder, 'none')])).stderr).toMatch(/can't read/)
  expect((await kvasir(['inspect', '--cache', folder])).stderr).toContain(
    `${folder}: expected a file that holds caches`,
  )
})

const generateInto = (file: string) =>
  kvasir(['generate', '--prompt', 'Once', '--max-tokens', '4', '--save-cache', file])

test('a folder that is not there is told before anything is written', async () => {
  const { code, stdout, stderr } = await generateInto(join(folder, 'no folder', 'story.cache'))
  expect(code).not.toBe(0)
  expect(stdout).toBe('')
  expect(stderr).toMatch(/--save-cache, got .*story\.cache: there is no folder/)
})

test('no name is told before anything is written', async () => {
  const { code, stdout, stderr } = await generateInto('')
  expect({ code, stdout }).toEqual({ code: 2, stdout: '' })
  expect(stderr).toContain('expected a file for --save-cache, got ""')
})

test('generate prints what it wrote also where the cache can not be saved', async () => {
  const vanishing = join(folder, 'vanishing')
  await mkdir(vanishing)
  const words = ['generate', '--prompt', 'Once', '--max-tokens', '4', '--save-cache', join(vanishing, 'story.cache')]
  const { code, stdout, stderr } = await runCaptured(words, {
    async loadModel(path, options) {
      await rm(vanishing, { recursive: true })
      return await loadModel(path, { worker: false, threads: 1, ...options })
    },
  })
  expect(code).not.toBe(0)
  expect(stdout.trim()).not.toBe('')
  expect(stderr).toMatch(/can't write .*story\.cache/)
})

test('a cache is saved under a name as long as names may be; a longer one is told before anything is written', async () => {
  expect(await generateInto(join(folder, 'x'.repeat(255)))).toMatchObject({ code: 0 })
  const { code, stdout, stderr } = await generateInto(join(folder, 'x'.repeat(256)))
  expect(code).not.toBe(0)
  expect(stdout).toBe('')
  expect(stderr).toMatch(/--save-cache, got .*xxx: it can't be written to \(ENAMETOOLONG\)/)
})

test('generate takes pages that come back, which inspect counts', async () => {
  const file = join(folder, 'recall.cache')
  const back = ['--policy', 'streaming', '--window', '12', '--recall', '2', '--save-cache', file, '--max-tokens', '1']
  expect((await kvasir(['generate', '--prompt', story + story + story, ...back])).code).toBe(0)
  const cache = JSON.parse((await kvasir(['inspect', '--cache', file, '--json'])).stdout).caches[0]
  expect(cache.options).toMatchObject({ policy: 'streaming', recall: 2 })
  expect(cache.layers[0].recall.pages).toBe(Math.floor(cache.seenTokens / 16))
})

test('positions are told in stretches and drawn over the sequence', () => {
  expect(rangesOf([0, 1, 2, 7, 9, 10])).toEqual([
    [0, 2],
    [7, 7],
    [9, 10],
  ])
  expect(picture([0, 3], 4)).toBe('█··█')
  expect(picture(Array.from({ length: 80 }, (_, i) => i).slice(40), 80)).toBe('·'.repeat(20) + '█'.repeat(20))
  expect(picture([79], 160)).toBe(`${'·'.repeat(19)}░${'·'.repeat(20)}`)
})

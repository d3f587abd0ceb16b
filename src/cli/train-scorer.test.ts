/** `kvasir train-scorer` with the bundled model: from a text to a cache that ranks by what was learned. */
import { cp, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { createDocument } from '../../eval/document.ts'
import { loadModel } from '../runtime/index.ts'
import { bundledModel } from './package-root.ts'
import { kvasir } from './testing/with-models.ts'

let folder = ''
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'kvasir-train-'))
})
afterAll(() => rm(folder, { recursive: true }))

test('a text becomes a scorer, and generation ranks by it', async () => {
  const [text, file] = [join(folder, 'text.txt'), join(folder, 'scorer.safetensors')]
  const model = await loadModel(bundledModel(), { worker: false, threads: 1 })
  const { tokens } = createDocument(model.tokenizer, { seed: 3, tokens: 1800, facts: 12 })
  await writeFile(text, model.tokenizer.decode([...tokens]))
  await model.dispose()
  const trained = await kvasir(`train-scorer --text ${text} --out ${file} --hidden 2 --held-out 0.3 --json`)
  expect(trained.code).toBe(0)
  const report = JSON.parse(trained.stdout)
  expect(report).toMatchObject({ model: 'kvasir-tiny', file, hidden: 2, texts: { training: 3, heldOut: 2 } })
  const { shares, scores, heads } = report.judgement
  expect(shares).toEqual([0.25, 0.5, 0.75, 0.875, 0.97])
  expect(scores.map(({ score }: { score: string }) => score)).toEqual(
    expect.arrayContaining(['learned', 'oracle', 'random']),
  )
  for (const { keptMass } of scores) expect(keptMass).toHaveLength(5)
  expect(heads).toHaveLength(8)
  expect(report.scoreMicroseconds).toBeGreaterThan(0)
  const ranked = await kvasir(`generate --prompt-file ${text} --max-tokens 4 --window 32 --json --importance ${file}`)
  expect(ranked.code).toBe(0)
  expect(JSON.parse(ranked.stdout).kv.keptTokens).toBe(32)
})

test('what it found is printed as a table', async () => {
  const line = `train-scorer --out ${join(folder, 'table.safetensors')} --context 500 --passages 2`
  const { code, stdout } = await kvasir(line)
  expect(code).toBe(0)
  expect(stdout).toMatch(/score +rank correlation +25% removed/)
  expect(stdout).toMatch(/learned +0\.\d{3}/)
  expect(stdout).toMatch(/1 text to learn from, [\d,]+ samples a head, 1 held out; linear, \d+ recent tokens/)
})

test('a short text, a model that is no folder and a name that is none are wrong usage', async () => {
  const text = join(folder, 'short.txt')
  await writeFile(text, 'Mara put the brass key in the blue drawer.')
  const short = await kvasir(`train-scorer --text ${text} --out ${join(folder, 'x')}`)
  expect(short).toMatchObject({ code: 2, stderr: expect.stringContaining('expected a text of at least 320 tokens') })
  const hub = await kvasir('train-scorer --model some/model')
  expect(hub).toMatchObject({
    code: 2,
    stderr: expect.stringContaining('expected --out for a model that is no folder'),
  })
  const name = await kvasir('generate --prompt x --importance learnt')
  expect(name).toMatchObject({ code: 2, stderr: expect.stringContaining('did you mean "learned"') })
})

test('without --out it goes beside the model, where it takes the place of none', async () => {
  const [model, few] = [join(folder, 'model'), '--context 64 --predict 32 --passages 2']
  const file = join(model, 'scorer.safetensors')
  await cp(bundledModel(), model, { recursive: true })
  const before = await readFile(file)
  const taken = await kvasir(`train-scorer --model ${model} ${few}`)
  expect(taken).toMatchObject({ code: 2, stdout: '', stderr: expect.stringContaining(`beside the model: ${file}`) })
  expect((await readFile(file)).equals(before)).toBe(true)
  await rm(file)
  const { code, stdout, stderr } = await kvasir(`train-scorer --model ${model} ${few}`)
  expect(code, stderr).toBe(0)
  expect(stdout).toContain(`Written: ${file}`)
  expect((await readFile(file)).equals(before)).toBe(false)
  expect((await kvasir(`train-scorer --model ${model} ${few} --out ${file} --json`)).code).toBe(0)
})

/** `kvasir eval policies` with the bundled model: small, but all of it. */
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { kvasir } from './testing/with-models.ts'

let folder = ''
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'kvasir-eval-'))
})
afterAll(() => rm(folder, { recursive: true }))

const small = '--context 300 --questions 2 --per-document 2 --shares 0.5,0.9'

test('stories: answers and logits by policy and share, as a table and a picture', async () => {
  const plot = join(folder, 'policies.svg')
  const line = `eval policies ${small} --policies window linear:model,h2o --plot ${plot}`
  const { code, stdout, stderr } = await kvasir(line)
  expect({ code, problems: stderr.match(/error.*/) }).toEqual({ code: 0, problems: null })
  expect(stdout).toMatch(/policy +50% removed +90% removed\n/)
  expect(stdout).toMatch(/linear:model +[01]\.\d{3} +[01]\.\d{3}\n/)
  expect(stdout).toContain('Answers right')
  expect(stdout).toMatch(/1 text of 3\d\d tokens, \d+ next tokens compared; with all of it, 2 of 2 answers right/)
  const picture = await readFile(plot, 'utf8')
  for (const label of ['window', 'linear:model', 'h2o', 'share of KV removed', 'Answers right: scores made anew']) {
    expect(picture).toContain(label)
  }
})

test('a text of the user: no answers, the same fields', async () => {
  const text = join(folder, 'text.txt')
  await writeFile(text, 'Mara put the brass key in the blue drawer. The sky was grey over the hills. '.repeat(30))
  const line = `eval policies --text ${text} --context 200 --predict 16 --passages 2 --policies random --shares 0.9 --json`
  const { code, stdout } = await kvasir(line)
  expect(code).toBe(0)
  const { rows, seconds, ...rest } = JSON.parse(stdout)
  expect(seconds).toBeGreaterThan(0)
  expect(rest).toMatchObject({ contextTokens: 199, texts: 2, shares: [0.9], full: { recall: null, positions: 32 } })
  expect(rows).toHaveLength(1)
  expect(rows[0]).toMatchObject({
    policy: 'random',
    kind: 'static',
    share: 0.9,
    window: 20,
    recall: null,
    positions: 32,
  })
  expect(rows[0].meanKl).toBeGreaterThan(0)
})

test('wrong usage says what was expected', async () => {
  const share = await kvasir('eval policies --shares 0.5,1')
  expect(share).toMatchObject({ code: 2, stderr: expect.stringContaining('Expected numbers above 0, below 1.') })
  const policy = await kvasir(`eval policies ${small} --policies snapk`)
  expect(policy).toMatchObject({ code: 2, stderr: expect.stringContaining('did you mean "snapkv"') })
  const text = await kvasir('eval policies --text no/such/file')
  expect(text).toMatchObject({ code: 1, stderr: expect.stringContaining("can't read the text no/such/file") })
})

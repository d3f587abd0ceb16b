/** `kvasir eval recall` and `eval memory`. */
import { expect, test } from 'vitest'
import { kvasir } from '../../test/fake-run.ts'

test('eval recall --json has the agreed fields', async () => {
  const args = 'eval recall --context 600 --questions 3 --per-document 2 --policy window --window 16 --json'
  const { code, stdout } = await kvasir(args.split(' '))
  expect(code).toBe(0)
  expect(JSON.parse(stdout)).toMatchObject({
    contextTokens: 600,
    window: 16,
    policy: 'window',
    questions: 3,
    correct: 0,
    recall: 0,
    kvBytes: 64,
  })
})

test('a full cache has no window unless one is asked for', async () => {
  const args = 'eval recall --context 600 --questions 1 --policy full --json'.split(' ')
  expect((await kvasir(args)).loaded[0]?.options).toEqual({ policy: 'full' })
  expect((await kvasir([...args, '--window', '9'])).loaded[0]?.options).toEqual({ policy: 'full', window: 9 })
})

test('eval recall and eval memory print tables', async () => {
  const recall = await kvasir('eval recall --context 600 --questions 3'.split(' '))
  expect(recall.stdout).toMatch(/asked about +questions +right +recall\n/)
  const memory = await kvasir('eval memory --tokens 3000 --samples 3'.split(' '))
  expect(memory.stdout).toMatch(/1,0\d\d +1\.00 KiB/)
  expect(memory.stdout).toContain('had the same size in all samples')
})

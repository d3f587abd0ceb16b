/** `kvasir demo`. */
import { expect, test } from 'vitest'
import type { Respond } from '../../test/fake-model.ts'
import { kvasir } from '../../test/fake-run.ts'

test('demo compares the linear cache with a sliding window', async () => {
  const args = 'demo --context 1500 --questions 4 --window 32'.split(' ')
  const { code, stdout, stderr } = await kvasir(args)
  expect(code).toBe(0)
  expect(stdout).toMatch(/A story of 1,5\d\d tokens/)
  expect(stdout).toMatch(/policy +tokens read +KV cache now +full cache would need +tokens\/s +answers right/)
  expect(stdout).toMatch(/linear +1,5\d\d +128 B +5\.\d+ KiB +[\d,]+ +0 of 4/)
  expect(stdout.match(/✗/g)).toHaveLength(8)
  expect(stdout + stderr).not.toContain('\x1b')
  const json = await kvasir([...args, '--json'])
  const result = JSON.parse(json.stdout)
  expect(result.runs.map(({ policy }: { policy: string }) => policy)).toEqual(['linear', 'window'])
})

test('demo counts what each policy still knows', async () => {
  const respond: Respond = (known, prompt) => {
    const subject = prompt.trim().replace(/^Where is |\?$/g, '')
    const place = known.match(new RegExp(`${subject} (in|on) the ([a-z]+ [a-z]+)\\.`))
    return place ? ` T${subject.slice(1)} is ${place[1]} the ${place[2]}.\n` : ' Nobody knows.\n'
  }
  const args = 'demo --context 1500 --questions 8 --window 32 --json'.split(' ')
  const { runs } = JSON.parse((await kvasir(args, { respond })).stdout)
  expect(runs[0]).toMatchObject({ policy: 'linear', questions: 8, kvBytes: 128 })
  expect(runs[0].correct).toBeGreaterThan(0)
  expect(runs[1]).toMatchObject({ policy: 'window', questions: 8, correct: 0, kvBytes: 128 })
})

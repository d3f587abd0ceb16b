/** `kvasir eval length` with the bundled model: small, but all of it. */
import { expect, test } from 'vitest'
import { kvasir } from './testing/with-models.ts'

const small = '--trained 128 --predict 16 --window 32 --times 1,3 --caches streaming:rank,full'

test('a row for each cache and length, as a table and as data', async () => {
  const { code, stdout } = await kvasir(`eval length ${small}`)
  expect(code).toBe(0)
  expect(stdout).toMatch(/cache +tokens +trained +loss +within +written +within +KV cache/)
  expect(stdout).toMatch(/streaming:rank +384 +3x +\d\.\d{3} +\d\.\d{3} +\d\.\d{3} +\d\.\d{3} +\d/)
  expect(stdout).toContain('having read the last 128 tokens alone')
  const { rows, seconds, ...rest } = JSON.parse((await kvasir(`eval length ${small} --json`)).stdout)
  expect(seconds).toBeGreaterThan(0)
  expect(rest).toEqual({ trained: 128, window: 32, predict: 16 })
  expect(rows.map(({ cache, tokens }: { cache: string; tokens: number }) => [cache, tokens])).toEqual([
    ...[
      ['streaming:rank', 128],
      ['streaming:rank', 384],
    ],
    ...[
      ['full', 128],
      ['full', 384],
    ],
  ])
  for (const row of rows) {
    for (const name of ['loss', 'freshLoss', 'writtenLoss', 'freshWrittenLoss']) expect(row[name]).toBeGreaterThan(0)
  }
  expect(rows[2].loss).toBeCloseTo(rows[2].freshLoss, 4)
})

test('wrong usage says what was expected', async () => {
  const cache = await kvasir('eval length --caches streaming:rnak')
  expect(cache).toMatchObject({ code: 2, stderr: expect.stringContaining('did you mean "rank"') })
})

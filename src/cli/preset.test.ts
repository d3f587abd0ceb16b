/** `--preset` together with what is given besides, with the bundled model. */
import { expect, test } from 'vitest'
import { kvasir } from './testing/with-models.ts'

test.each([
  ['--preset chat --window 256', 'window of 256, got 4 + 512 (--preset chat has sinks 4, recent 512)'],
  ['--preset chat --window 256 --recent 300', 'window of 256, got 4 + 300 (--preset chat has sinks 4)'],
  ['--preset chat --recent 5000', 'window of 4096, got 4 + 5000 (--preset chat has window 4096, sinks 4)'],
  ['--preset code --policy full', 'sinks and recent mean nothing to policy "full" (--preset code has sinks 4, recent'],
])('%s: what nobody gave is said to be of the preset', async (options, message) => {
  const { code, stdout, stderr } = await kvasir(`generate --prompt x ${options}`)
  expect({ code, stdout }).toEqual({ code: 2, stdout: '' })
  expect(stderr).toContain(message)
})

test('what a preset has nothing to do with is said without it', async () => {
  const { stderr } = await kvasir('generate --prompt x --preset chat --num-beams 2 --n 3')
  expect(stderr).toMatch(/^error: /)
  expect(stderr).not.toContain('preset')
})

test('benches say it too', async () => {
  const { code, stderr } = await kvasir('bench stalls --preset realtime --recent 2000')
  expect({ code, stderr }).toEqual({
    code: 2,
    stderr: expect.stringContaining('(--preset realtime has window 1024, sinks 4)'),
  })
})

test('an evaluation takes the window of a preset, not its own default', async () => {
  const sizes = '--context 64 --questions 1 --per-document 1 --policy streaming'
  const { code, stdout, stderr } = await kvasir(`eval recall ${sizes} --preset realtime --json`)
  expect(code, stderr).toBe(0)
  expect(JSON.parse(stdout)).toMatchObject({ window: 1024, policy: 'streaming' })
})

import { expect, test, vi } from 'vitest'
import { createProgress, withProgress } from './progress.ts'

/** A stream that remembers what was written to it. */
function collect(isTTY: boolean) {
  const parts: string[] = []
  return { isTTY, columns: 100, write: (text: string) => parts.push(text) > 0, text: () => parts.join('') }
}

const options = { title: 'Reading', total: 2000, unit: 'tokens' }

test('in a log, progress is a line at the start and one at each quarter', () => {
  const stream = collect(false)
  const progress = createProgress(stream, options)
  for (let done = 100; done <= 2000; done += 100) progress.update(done, `${done} bytes`)
  progress.end()
  const lines = stream.text().trimEnd().split('\n')
  expect(lines.map((line) => line.replace(/, [\d,]+ a second/, ''))).toEqual([
    'Reading 2,000 tokens ...',
    'Reading: 500 of 2,000 tokens; 500 bytes',
    'Reading: 1,000 of 2,000 tokens; 1000 bytes',
    'Reading: 1,500 of 2,000 tokens; 1500 bytes',
    'Reading: 2,000 of 2,000 tokens; 2000 bytes',
  ])
})

test('what is read beyond the total, to the end of a sentence, is not told', () => {
  const stream = collect(false)
  const progress = createProgress(stream, { ...options, hasRate: false })
  progress.update(2012)
  expect(stream.text()).toContain('Reading: 2,000 of 2,000 tokens\n')
})

test('how fast it goes is counted from the first that is told', () => {
  vi.useFakeTimers({ toFake: ['performance'] })
  const stream = collect(false)
  const progress = createProgress(stream, options) // by someone who has done 500 and now knows how many there are
  progress.update(500)
  vi.advanceTimersByTime(2000)
  progress.update(1500)
  vi.useRealTimers()
  expect(stream.text()).toContain('Reading: 500 of 2,000 tokens\n')
  expect(stream.text()).toContain('Reading: 1,500 of 2,000 tokens, 500 a second\n')
})

test('on a terminal, progress is a bar with a line of details below it', async () => {
  const stream = collect(true)
  const progress = createProgress(stream, options)
  progress.update(0)
  progress.update(1000, '17 bytes')
  await vi.waitFor(() => {
    expect(stream.text()).toMatch(/Reading {2}━{16}─{16} +50% {2}1,000 of 2,000 tokens {2}[\d,]+ a second/)
    expect(stream.text()).toContain('17 bytes')
  })
  progress.end()
})

test('work that fails takes its bar along, which began when it first told something', async () => {
  const ends = vi.fn()
  const progress = vi.fn(() => ({ update: () => {}, end: ends }))
  const work = withProgress({ progress }, { title: 'Reading', unit: 'tokens' }, async (tell) => {
    expect(progress).not.toHaveBeenCalled()
    for (const done of [1, 2]) tell(done, 2000)
    throw new Error('no more')
  })
  await expect(work).rejects.toThrow('no more')
  expect(progress.mock.calls).toEqual([[options]])
  expect(ends).toHaveBeenCalledTimes(1)
  expect(await withProgress({ progress }, { title: '', unit: '' }, async () => 'nothing told')).toBe('nothing told')
  expect(ends).toHaveBeenCalledTimes(1)
})

import { expect, it } from 'vitest'
import { TaskQueue } from './queue.ts'

it('a queue runs one task at a time, in order, and goes on after one that fails', async () => {
  const queue = new TaskQueue()
  const log: string[] = []
  const task = (name: string, ticks: number) => async () => {
    log.push(`${name} begins`)
    for (let i = 0; i < ticks; i++) await Promise.resolve()
    log.push(`${name} ends`)
    if (name === 'b') throw new Error('b failed')
    return name
  }
  const results = await Promise.allSettled([queue.run(task('a', 5)), queue.run(task('b', 1)), queue.run(task('c', 0))])
  expect(log).toEqual(['a begins', 'a ends', 'b begins', 'b ends', 'c begins', 'c ends'])
  expect(results.map(({ status }) => status)).toEqual(['fulfilled', 'rejected', 'fulfilled'])
})

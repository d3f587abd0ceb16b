import { PassThrough } from 'node:stream'
import { expect, test } from 'vitest'
import type { CliContext } from './context.ts'
import { openLines } from './lines.ts'

test('lines of a terminal are asked for, and their end begins a new line', async () => {
  const [stdin, stdout] = [Object.assign(new PassThrough(), { isTTY: true }), new PassThrough()]
  let interrupts = 0
  const lines = openLines({ stdin, stdout } as unknown as CliContext, () => interrupts++)
  const first = lines.next('> ')
  stdin.write('hello\r')
  expect(await first).toBe('hello')
  const second = lines.next('. ')
  stdin.write('\x03')
  stdin.write('\x04') // Ctrl-C, Ctrl-D
  expect([await second, interrupts]).toEqual([undefined, 1])
  const shown = String(stdout.read())
  expect(shown).toContain('> ')
  expect(shown.slice(shown.lastIndexOf('. '))).toMatch(/\n$/)
  lines.close()
})

test('Ctrl-D that comes before its line is asked for ends them too, and the terminal is let go', async () => {
  const [stdin, stdout] = [Object.assign(new PassThrough(), { isTTY: true }), new PassThrough()]
  const lines = openLines({ stdin, stdout } as unknown as CliContext, () => {})
  const first = lines.next('> ')
  stdin.write('hello\r\x04')
  expect(await first).toBe('hello')
  expect(await lines.next('. ')).toBeUndefined()
  expect(String(stdout.read())).not.toContain('. ')
  expect(stdin.isPaused()).toBe(true)
})

import { expect, test } from 'vitest'
import { formatBytes, formatCount, formatPlural, formatSeconds, ratePerSecond, wrapText } from './format.ts'

test('counts have thousands separators', () => {
  expect([0, 999, 65_536, 1234.6].map(formatCount)).toEqual(['0', '999', '65,536', '1,235'])
  expect([0, 1, 2].map((count) => formatPlural(count, 'question'))).toEqual([
    '0 questions',
    '1 question',
    '2 questions',
  ])
})

test('bytes have three digits or so and a unit', () => {
  const cases = [0, 17, 1023, 1024, 1.5 * 2 ** 20, 42 * 2 ** 20, 210 * 2 ** 20, 3 * 2 ** 40]
  expect(cases.map(formatBytes)).toEqual([
    '0 B',
    '17 B',
    '1,023 B',
    '1.00 KiB',
    '1.50 MiB',
    '42.0 MiB',
    '210 MiB',
    '3.00 TiB',
  ])
})

test('times get shorter digits as they grow', () => {
  expect([0, 350, 12_340, 125_000].map(formatSeconds)).toEqual(['0.00 s', '0.35 s', '12.3 s', '2 min 5 s'])
})

test('a rate over no time is zero, not infinite', () => {
  expect([ratePerSecond(10, 500), ratePerSecond(10, 0)]).toEqual([20, 0])
})

test('text breaks at spaces, and escape sequences take no room', () => {
  expect(wrapText('one two three\nfour', 9, '  ')).toBe('  one two\n  three\n  four')
  expect(wrapText('\x1b[1mone\x1b[22m two three', 7)).toBe('\x1b[1mone\x1b[22m two\nthree')
  expect(wrapText('unbreakable', 5)).toBe('unbreakable')
})

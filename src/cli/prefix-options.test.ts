import { Command } from 'commander'
import { expect, test } from 'vitest'
import { addOptions } from './options.ts'
import { type PrefixFlags, prefixOptions, toPrefixCache } from './prefix-options.ts'

function parse(...args: readonly string[]): ReturnType<typeof toPrefixCache> {
  const command = addOptions(new Command(), prefixOptions())
  command.exitOverride().configureOutput({ writeErr: () => undefined })
  return toPrefixCache(command.parse(args, { from: 'user' }).opts<PrefixFlags>())
}

test('without tiers prefixes are kept in RAM; tiers that are named are all there are', () => {
  expect(parse()).toBeUndefined()
  expect(parse('--prefix-cache')).toEqual({})
  expect(parse('--prefix-cache', '--kv-tier', 'ram:1MiB')).toEqual({ ram: 2 ** 20 })
  const redis = 'redis://localhost:6379'
  expect(parse('--prefix-cache', '--kv-tier', 'disk:kept:1GiB', '--kv-tier', redis)).toEqual({
    ...{ ram: 0, disk: { path: 'kept', maxBytes: 2 ** 30 }, redis: { url: redis } },
  })
})

test('tiers without what to keep there, of one kind twice, or unknown are refused', () => {
  expect(() => parse('--kv-tier', 'ram:1MiB')).toThrow('expected --prefix-cache or --recall with --kv-tier')
  expect(() => parse('--kv-tier', 'ram:1MiB', '--kv-tier', 'ram:2MiB')).toThrow('got ram twice')
  expect(() => parse('--kv-tier', 'tape:1MiB')).toThrow('Expected ram:BYTES, disk:PATH:BYTES')
})

import { expect, test } from 'vitest'
import { attentionFlops, attentionPairs, kvCacheBytes } from '../attention/index.ts'
import { LinearKVCache } from '../cache/index.ts'
import { openKernels } from '../kernels/index.ts'
import { createKvCache, createKvPool } from '../policies/index.ts'
import { checkKeys, describe } from './check.ts'

test.each([undefined, null, 5, 'causal', [], ['window'], new Float32Array(1)])('%j is no options object', (given) => {
  const expected = `expected an object with the options of a thing, got ${describe(given)}`
  expect(() => checkKeys('cache', 'a thing', given as object, ['window'])).toThrow(expected)
})

test('public functions that get no options say so', () => {
  const nothing = undefined as never
  const calls: [() => unknown, string][] = [
    [() => attentionFlops(nothing), 'attentionFlops'],
    [() => attentionPairs(nothing), 'attentionPairs'],
    [() => kvCacheBytes(nothing), 'kvCacheBytes'],
    [() => new LinearKVCache(nothing), 'LinearKVCache'],
    [() => new LinearKVCache({ numHeads: 1, headDim: 1 }).update(nothing), 'update'],
    [() => openKernels(5 as never), 'kernels'],
    [() => createKvPool(openKernels(), null as never), 'a pool'],
    [() => createKvCache(openKernels(), nothing, nothing), 'a cache'],
  ]
  for (const [call, what] of calls) expect(call).toThrow(`expected an object with the options of ${what}, got`)
})

test('kernels that are none', () => {
  const kernels = {} as never
  const message = 'expected opened kernels for kernels, got an object (Object)'
  expect(() => new LinearKVCache({ numHeads: 1, headDim: 1, kernels })).toThrow(message)
})

test('values are named with the article that they take', () => {
  expect(describe(new Int32Array(1))).toBe('an Int32Array')
  expect(describe(new Uint8Array(1))).toBe('a Uint8Array')
  expect(describe(new Float32Array(1))).toBe('a Float32Array')
})

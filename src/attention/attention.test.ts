import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { attention } from './attention.ts'
import { define, type Pair } from './testing/definition.ts'
import { big, cases, defined, tall } from './testing/masks.ts'
import { expectClose, expectSameBits, sample, samples, sizesOf, usableBackends } from './testing/tensors.ts'

describe.each(usableBackends)('attention, %s', (backend) => {
  test.each(cases)('is what its definition says: $name', async (one) => {
    const sizes = sizesOf(one.sizes)
    const { q, k, v, numbers } = samples(sizes, 3)
    const options = { ...one.options?.(sizes), backend }
    const state = await attention(q.tensor, k.tensor, v.tensor, { ...options, returnLse: true })
    expectClose(state, defined(one, sizes, numbers), [sizes.B, sizes.T, sizes.H, sizes.E])
    const output = await attention(q.tensor, k.tensor, v.tensor, options)
    expect(output.data).toEqual(state.output.data)
  })

  test.each(['f16', 'bf16'] as const)('takes and gives %s', async (storage) => {
    for (const partial of [big, tall]) {
      const sizes = sizesOf(partial)
      const { q, k, v, numbers } = samples(sizes, 4, storage)
      const dtype = storage === 'bf16' ? storage : undefined
      const half = sample(9, [1, 1, sizes.T, sizes.S], storage)
      const options = { causal: true, dtype, backend, returnLse: true, bias: half.tensor } as const
      const state = await attention(q.tensor, k.tensor, v.tensor, options)
      expect(state.output.type).toBe(storage === 'f16' ? 'float16' : 'uint16')
      const added = ({ t, j }: Pair) => half.numbers[t * sizes.S + j] as number
      const sees = ({ t, j }: Pair) => j <= t + sizes.S - sizes.T
      expectClose(state, define({ ...sizes, ...numbers, sees, added }), [sizes.B, sizes.T, sizes.H, sizes.E])
    }
  })

  test.each([true, false])('never reads past the lengths, causal %s', async (causal) => {
    const sizes = sizesOf(tall)
    const { q, k, v } = samples(sizes, 5)
    const kvLengths = [7, 30]
    const run = () => attention(q.tensor, k.tensor, v.tensor, { kvLengths, causal, backend, returnLse: true })
    const clean = await run()
    for (const { tensor } of [k, v]) {
      const row = sizes.K * (tensor.dims[3] as number)
      for (const [b, length] of kvLengths.entries()) {
        ;(tensor.data as Float32Array).fill(Number.NaN, (b * sizes.S + length) * row, (b + 1) * sizes.S * row)
      }
    }
    expectSameBits(await run(), clean)
  })
})

test('any sizes and masks, against the definition', async () => {
  const size = (max: number) => fc.integer({ min: 0, max })
  const shape = fc.record({
    B: size(3),
    T: size(40),
    S: size(70),
    K: fc.integer({ min: 1, max: 3 }),
    G: fc.integer({ min: 1, max: 5 }),
  })
  const dims = fc.record({ D: fc.integer({ min: 1, max: 70 }), E: fc.integer({ min: 1, max: 70 }) })
  const limit = fc.integer({ min: -1, max: 30 })
  const form = fc.record({ causal: fc.boolean(), left: limit, right: limit, sinks: size(5), seed: fc.nat() })
  await fc.assert(
    fc.asyncProperty(shape, dims, form, async ({ G, ...some }, dim, { causal, left, right, sinks, seed }) => {
      const sizes = { ...some, ...dim, H: G * some.K }
      const { q, k, v, numbers } = samples(sizes, seed)
      const options = { causal, window: [left, right], sinks, returnLse: true } as const
      const state = await attention(q.tensor, k.tensor, v.tensor, options)
      const sees = ({ t, j }: Pair) => {
        const p = t + sizes.S - sizes.T
        if (left >= 0 && j < p - left && j >= sinks) return false
        return causal ? j <= p : right < 0 || j <= p + right
      }
      expectClose(state, define({ ...sizes, ...numbers, sees }), [sizes.B, sizes.T, sizes.H, sizes.E])
    }),
    { numRuns: 150 },
  )
})

import { Tensor } from 'onnxruntime-common'
import { describe, expect, test } from 'vitest'
import { createRandom } from '../kernels/cases.ts'
import { attention } from './attention.ts'
import type { AttentionState } from './core.ts'
import { mergeAttentionStates } from './merge-states.ts'
import { expectNumbers, numbersOf, sample, samples, sizesOf, usableBackends } from './testing/tensors.ts'

const sizes = sizesOf({ B: 2, T: 5, S: 61, H: 4, K: 2, D: 16, E: 9 })

/** Keys from..to of each sequence. */
function part(tensor: Tensor, from: number, to: number): Tensor {
  const [B, S, K, D] = tensor.dims as [number, number, number, number]
  const data = tensor.data as Uint16Array
  const Type = data.constructor as Uint16ArrayConstructor
  const out = new Type(B * (to - from) * K * D)
  for (let b = 0; b < B; b++)
    out.set(data.subarray((b * S + from) * K * D, (b * S + to) * K * D), b * (to - from) * K * D)
  return new Tensor(tensor.type as 'float16', out, [B, to - from, K, D])
}

function state(output: number[], lse: number[], dims: number[]): AttentionState {
  return {
    output: new Tensor('float32', Float32Array.from(output), dims),
    lse: new Tensor('float32', Float32Array.from(lse), dims.slice(0, -1)),
  }
}

describe.each(usableBackends)('mergeAttentionStates, %s', (backend) => {
  test.each(['f32', 'f16', 'bf16'] as const)('puts any split together, empty parts too: %s', async (storage) => {
    const { q, k, v } = samples(sizes, 1, storage)
    const random = createRandom(5)
    const options = { backend, dtype: storage === 'bf16' ? storage : undefined, returnLse: true } as const
    const whole = await attention(q.tensor, k.tensor, v.tensor, options)
    for (let n = 0; n < 50; n++) {
      const inner = Array.from({ length: 1 + Math.floor(random() * 5) }, () => Math.floor(random() * (sizes.S + 1)))
      // Equal cuts, and cuts at the ends, make parts without keys.
      const cuts = [0, ...inner, ...(n % 3 === 0 ? [0, sizes.S] : []), sizes.S].sort((a, b) => a - b)
      const states: AttentionState[] = []
      for (const [i, to] of cuts.slice(1).entries()) {
        const from = cuts[i] as number
        states.push(await attention(q.tensor, part(k.tensor, from, to), part(v.tensor, from, to), options))
      }
      const merged = await mergeAttentionStates(states, { dtype: options.dtype })
      expect(merged.output.type).toBe(whole.output.type)
      // Each part was rounded once, at its own size, and the whole once more; values go up to about 3.
      const half = { f32: 0, f16: 2 ** -10, bf16: 2 ** -7 }[storage]
      expectNumbers(numbersOf(merged.output), numbersOf(whole.output), half, 2e-5 + half)
      expectNumbers(numbersOf(merged.lse), numbersOf(whole.lse), 1e-6)
    }
  })
})

test('one state is itself, and order does not matter', async () => {
  const [one, other] = [1, 2].map((seed): AttentionState => {
    return { output: sample(seed, [3, 4, 5]).tensor, lse: sample(seed + 7, [3, 4]).tensor }
  }) as [AttentionState, AttentionState]
  expect((await mergeAttentionStates([one])).output.data).toEqual(one.output.data)
  const [forth, back] = [await mergeAttentionStates([one, other]), await mergeAttentionStates([other, one])]
  expect(forth.output.data).toEqual(back.output.data)
})

test('rows that saw nothing, whatever they hold', async () => {
  const [empty, nan] = [Number.NEGATIVE_INFINITY, Number.NaN]
  const seen = state([1, 2, 3, 4], [0.5, empty], [2, 2])
  // Minus infinity is ours, plus infinity is what flash-attn writes.
  for (const none of [empty, Number.POSITIVE_INFINITY]) {
    const merged = await mergeAttentionStates([state([nan, nan, nan, 7], [none, none], [2, 2]), seen])
    expect(Array.from(merged.output.data as Float32Array)).toEqual([1, 2, 0, 0])
    expect(Array.from(merged.lse.data as Float32Array)).toEqual([0.5, empty])
  }
})

test('equal parts average; huge and tiny sums keep their scale; NaN is seen', async () => {
  const merged = await mergeAttentionStates([state([1], [1000], [1, 1]), state([3], [1000], [1, 1])])
  expect((merged.output.data as Float32Array)[0]).toBe(2)
  expectNumbers(merged.lse.data as Float32Array, [1000 + Math.log(2)], 1e-6)
  const far = await mergeAttentionStates([state([1], [-2000], [1, 1]), state([3], [900], [1, 1])])
  expect((far.output.data as Float32Array)[0]).toBe(3)
  const broken = await mergeAttentionStates([state([1, 5], [Number.NaN, 1], [2, 1]), state([3, 5], [1, 1], [2, 1])])
  expect(Array.from(broken.output.data as Float32Array)).toEqual([Number.NaN, 5])
  expect((broken.lse.data as Float32Array)[0]).toBeNaN()
})

test('what does not fit is refused', async () => {
  const good = state([1, 2], [0], [1, 2])
  const refuse = async (states: unknown, message: RegExp, options = {}) => {
    await expect(mergeAttentionStates(states as AttentionState[], options)).rejects.toThrow(message)
  }
  await refuse([], /at least one state/)
  await refuse(undefined, /at least one state, got undefined/)
  await refuse([null], /\{ output, lse \} for states\[0\], got null/)
  await refuse([{ output: good.output }], /a Tensor for states\[0\]\.lse, got undefined/)
  await refuse([good, state([1, 2, 3], [0], [1, 3])], /expected shape \[1, 2\] for states\[1\]\.output, got \[1, 3\]/)
  await refuse([{ ...good, lse: sample(1, [2]).tensor }], /expected shape \[1\] for states\[0\]\.lse, got \[2\]/)
  await refuse([good, { ...good, output: sample(1, [1, 2], 'f16').tensor }], /f32 for states\[1\]\.output, .* got f16/)
  const scalar = new Tensor('float32', Float32Array.of(1), [])
  await refuse([{ output: scalar, lse: scalar }], /at least one axis/)
  await refuse([good], /did you mean "dtype"/, { dtypes: 'f32' })
})

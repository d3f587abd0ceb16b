/** The bits of a sequence depend neither on what it is computed with nor on how many threads there are. */
import { Tensor } from 'onnxruntime-common'
import { expect, test } from 'vitest'
import { backends } from '../kernels/backends.ts'
import { openKernels } from '../kernels/index.ts'
import { type AttentionOptions, attention } from './attention.ts'
import { dynamicMaskAttention } from './dynamic-mask.ts'
import type { Sizes } from './testing/definition.ts'
import { expectSameBits, sample, samples, sizesOf } from './testing/tensors.ts'

const shapes: Sizes[] = [
  sizesOf({ B: 5, T: 1, S: 4096, H: 8, K: 2, D: 64 }),
  sizesOf({ B: 4, T: 1, S: 1025, H: 4, K: 4, D: 80 }),
  sizesOf({ B: 3, T: 97, S: 131, H: 6, K: 3, D: 59, E: 40 }),
  sizesOf({ B: 12, T: 3, S: 33, H: 4, K: 1, D: 128 }),
]
const forms: Omit<AttentionOptions, 'returnLse'>[] = [
  { causal: true, deterministic: true },
  { causal: true, window: [70, 0], sinks: 4, softcap: 5, smoothSoftmax: true },
]

const usable = (['native', 'wasm'] as const).filter((name) => backends[name].probe() === true)
const engines = usable.flatMap((backend) =>
  (backend === 'native' ? [1, 2, 5] : [1]).map((threads) => ({ backend, threads })),
)

const opened = engines.map((options) => openKernels(options))

test.each(['f32', 'f16', 'bf16'] as const)('alone as in a batch, with 1, 2 and 5 threads: %s', async (storage) => {
  const dtype = storage === 'bf16' ? storage : undefined
  for (const sizes of shapes) {
    const { q, k, v } = samples(sizes, 1, storage)
    for (const form of forms) {
      const byBackend = new Map<string, Awaited<ReturnType<typeof batch>>>()
      const batch = (kernels: (typeof opened)[number]) => {
        return attention(q.tensor, k.tensor, v.tensor, { ...form, dtype, kernels, returnLse: true })
      }
      for (const kernels of opened) {
        const state = await batch(kernels)
        const known = byBackend.get(kernels.name)
        if (known) expectSameBits(state, known)
        byBackend.set(kernels.name, state)
        for (let b = 0; b < sizes.B; b += 2) {
          const own = [q, k, v].map(({ tensor }) => sequence(tensor, b)) as [Tensor, Tensor, Tensor]
          const alone = await attention(...own, { ...form, dtype, kernels, returnLse: true })
          expectSameBits(alone, { output: sequence(state.output, b), lse: sequence(state.lse, b) })
        }
      }
    }
  }
})

test('dynamic masks too', async () => {
  for (const sizes of [sizesOf({ B: 3, T: 40, S: 50, H: 4, K: 2 }), sizesOf({ B: 3, T: 1, S: 900, H: 4, K: 2 })]) {
    const { q, k, v } = samples(sizes, 1)
    const bias = sample(4, [sizes.B, sizes.K, 1, sizes.S]).tensor
    const options = { keepWindowSize: 13, returnLse: true } as const
    for (const backend of usable) {
      const engines = opened.filter(({ name }) => name === backend)
      const states = await Promise.all(
        engines.map((kernels) => dynamicMaskAttention(q.tensor, k.tensor, v.tensor, bias, { ...options, kernels })),
      )
      for (const state of states) expectSameBits(state, states[0] as (typeof states)[number])
      const own = [q.tensor, k.tensor, v.tensor, bias].map((tensor) => sequence(tensor, 1)) as [
        Tensor,
        Tensor,
        Tensor,
        Tensor,
      ]
      const alone = await dynamicMaskAttention(...own, { ...options, kernels: engines[0] })
      const [first] = states
      if (first) expectSameBits(alone, { output: sequence(first.output, 1), lse: sequence(first.lse, 1) })
    }
  }
})

test('calls may run at the same time', async () => {
  const many = await Promise.all(
    Array.from({ length: 12 }, async (_, n) => {
      const sizes = shapes[2 + (n % 2)] as Sizes
      const { q, k, v } = samples(sizes, n % 4)
      return await attention(q.tensor, k.tensor, v.tensor, { causal: true, returnLse: true })
    }),
  )
  for (const [n, state] of many.entries()) expectSameBits(state, many[n % 4] as (typeof many)[number])
  expect(many.length).toBe(12)
})

/** Sequence b of a batch. */
function sequence(tensor: Tensor, b: number): Tensor {
  const [B, ...rest] = tensor.dims as [number, ...number[]]
  const length = tensor.size / B
  const data = (tensor.data as Uint16Array).slice(b * length, (b + 1) * length)
  return new Tensor(tensor.type as 'uint16', data, [1, ...rest])
}

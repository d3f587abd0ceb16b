/** What attention owes to others: the thread, and a cache that a refused call has not touched. */
import { Tensor } from 'onnxruntime-common'
import { expect, test } from 'vitest'
import { createRandom, normal } from '../kernels/cases.ts'
import { openKernels } from '../kernels/index.ts'
import { probeNative } from '../kernels/native.ts'
import { attention, flashAttentionVarlen, flashAttentionWithKVCache, mergeAttentionStates } from './index.ts'
import { usableBackends } from './testing/tensors.ts'

const tensor = (...dims: number[]): Tensor => {
  const length = dims.reduce((a, b) => a * b)
  return new Tensor('float32', normal(createRandom(length), length), dims)
}

/** How often others got at the thread while `work` went on. */
async function turnsDuring(work: () => Promise<unknown>): Promise<number> {
  let turns = 0
  const timer = setInterval(() => turns++, 1)
  await work()
  clearInterval(timer)
  return turns
}

test('many short calls leave the thread to others now and then', async () => {
  const count = 1500
  const starts = Array.from({ length: count + 1 }, (_, i) => i * 24)
  const [q, k] = [tensor(count * 24, 4, 32), tensor(count * 24, 2, 32)]
  const turns = await turnsDuring(() => {
    return flashAttentionVarlen(q, k, k, { cuSeqlensQ: starts, cuSeqlensK: starts, causal: true })
  })
  expect(turns).toBeGreaterThan(1)
})

test('a short call behind a long one in the background does not hold the thread', async (context) => {
  if (probeNative() !== true) context.skip('needs the native backend')
  const kernels = openKernels({ backend: 'native', threads: 2 })
  const [long, short] = [tensor(1, 1536, 8, 64), tensor(1, 1, 8, 64)]
  const background = attention(long, long, long, { kernels })
  const turns = await turnsDuring(() => attention(short, short, short, { kernels }))
  await background
  expect(turns).toBeGreaterThan(1)
})

/** What a caller who gives a buffer to a worker does. */
const detach = ({ data }: Tensor) => void structuredClone(data, { transfer: [(data as Float32Array).buffer as never] })
const gone = { name: 'KvasirError', code: 'invalid-argument' }

test.each(usableBackends)('tensors that are given away between two sequences are missed, %s', async (backend) => {
  for (const which of [0, 1, 2]) {
    const tensors = [tensor(2, 3, 4, 8), tensor(2, 7, 2, 8), tensor(2, 7, 2, 8)] as const
    const call = attention(...tensors, { backend })
    detach(tensors[which] as Tensor)
    await expect(call).rejects.toMatchObject(gone)
  }
})

test('queries that are given away in the middle of a long call are missed, where they go in by pieces', async (context) => {
  if (!usableBackends.includes('wasm')) context.skip('needs the wasm backend')
  const [q, k] = [tensor(1, 33_000, 1, 4), tensor(1, 64, 1, 4)]
  const call = attention(q, k, k, { backend: 'wasm' })
  detach(q)
  await expect(call).rejects.toMatchObject({ ...gone, message: expect.stringContaining('until the call is done') })
})

const overflowing = [{ alibiSlopes: [1e39, 1] }, { softmaxScale: 1e39 }, { softcap: 1e39 }, { sinkLogits: [1e39, 0] }]

test.each(overflowing)('numbers beyond f32 are refused before anything is stored: %o', async (option) => {
  const cache = tensor(1, 8, 1, 16)
  const before = (cache.data as Float32Array).slice()
  const fresh = { k: tensor(1, 1, 1, 16), v: tensor(1, 1, 1, 16), cacheSeqlens: [3] }
  const call = flashAttentionWithKVCache(tensor(1, 1, 2, 16), cache, tensor(1, 8, 1, 16), { ...fresh, ...option })
  await expect(call).rejects.toThrow(/\[kvasir:attention\]/)
  expect(cache.data).toEqual(before)
})

test('rotary tables with NaN are refused before anything is stored', async () => {
  const cache = tensor(1, 8, 1, 16)
  const before = (cache.data as Float32Array).slice()
  const nan = new Tensor('float32', new Float32Array(8 * 8).fill(Number.NaN), [8, 8])
  const fresh = { k: tensor(1, 1, 1, 16), v: tensor(1, 1, 1, 16), cacheSeqlens: [3], rotaryCos: nan, rotarySin: nan }
  const call = flashAttentionWithKVCache(tensor(1, 1, 2, 16), cache, tensor(1, 8, 1, 16), fresh)
  await expect(call).rejects.toThrow(/finite numbers in rotaryCos, got NaN/)
  expect(cache.data).toEqual(before)
})

test('no dropout is no reason to refuse, and null is no object of options', async () => {
  const q = tensor(1, 2, 2, 16)
  await attention(q, q, q, { dropout: 0 } as object)
  const state = await attention(q, q, q, { returnLse: true })
  await expect(mergeAttentionStates([state], null as never)).rejects.toThrow(/\[kvasir:attention\]/)
})

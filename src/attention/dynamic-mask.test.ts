import { Tensor } from 'onnxruntime-common'
import { describe, expect, test } from 'vitest'
import { type DynamicMaskOptions, dynamicMaskAttention } from './dynamic-mask.ts'
import type { Sizes } from './testing/definition.ts'
import { define, type Pair } from './testing/definition.ts'
import { expectClose, sample, samples, sizesOf, usableBackends } from './testing/tensors.ts'

type Options = Omit<DynamicMaskOptions, 'returnLse'>

/**
 * create_mask of flash_dmattn for one row: top-k or bias > 0 among the keys that are not masked, then the majority of
 * each block; the causal mask and hidden keys once more, as its kernel applies them.
 */
function createMask(bias: number[], visible: (j: number) => boolean, options: Options): boolean[] {
  const { keepWindowSize = 2048, maskKind = 'topk', blockSize = 1 } = options
  const open = bias.map((value, j) => visible(j) && value > Number.NEGATIVE_INFINITY)
  const order = [...bias.keys()]
    .filter((j) => open[j])
    .sort((a, b) => (bias[b] as number) - (bias[a] as number) || b - a)
  const best = new Set(order.slice(0, keepWindowSize))
  const mask = bias.map((value, j) => (maskKind === 'topk' ? best.has(j) : open[j] === true && value > 0))
  for (let from = 0; blockSize > 1 && from < mask.length; from += blockSize) {
    const block = mask.slice(from, from + blockSize)
    mask.fill(2 * block.filter(Boolean).length > block.length, from, from + block.length)
  }
  return mask.map((kept, j) => kept && open[j] === true)
}

/** The bias, some of it equal, some of it -Infinity, and its rows. */
function biasOf(dims: readonly [number, number, number, number]) {
  const { numbers } = sample(8, dims)
  const values = numbers.map((value, i) => (i % 11 === 3 ? Number.NEGATIVE_INFINITY : Math.round(value * 4) / 4))
  const [b1, n1, t1, S] = dims
  const row = (b: number, n: number, t: number) => {
    const at = (((b1 === 1 ? 0 : b) * n1 + (n1 === 1 ? 0 : n)) * t1 + (t1 === 1 ? 0 : t)) * S
    return Array.from(values.subarray(at, at + S))
  }
  return { tensor: new Tensor('float32', values, dims), row }
}

async function compare(partial: Partial<Sizes>, shape: 'one' | 'each', heads: 'K' | 'H' | '1', options: Options) {
  const sizes = sizesOf(partial)
  const { B, T, S, H, K, E } = sizes
  const { q, k, v, numbers } = samples(sizes, 1)
  const bias = biasOf([heads === '1' ? 1 : B, { K, H, 1: 1 }[heads], shape === 'one' ? 1 : T, S])
  const state = await dynamicMaskAttention(q.tensor, k.tensor, v.tensor, bias.tensor, { ...options, returnLse: true })
  const masks = new Map<string, boolean[]>()
  const sees = ({ b, h, k: kv, t, j }: Pair) => {
    const n = heads === 'H' ? h : kv
    const key = `${b} ${n} ${t}`
    const visible = (at: number) => options.isCausal === false || at <= t + S - T
    const mask = masks.get(key) ?? createMask(bias.row(b, n, t), visible, options)
    masks.set(key, mask)
    return mask[j] === true
  }
  const added = ({ b, h, k: kv, t, j }: Pair) =>
    options.addBias === false ? 0 : (bias.row(b, heads === 'H' ? h : kv, t)[j] as number)
  expectClose(state, define({ ...sizes, ...numbers, sees, added, scale: options.softmaxScale }), [B, T, H, E])
}

const sizes: Partial<Sizes>[] = [
  { B: 2, T: 5, S: 13, H: 4, K: 2, D: 8, E: 5 },
  { B: 1, T: 23, S: 29, H: 4, K: 2, D: 8 },
  { B: 2, T: 1, S: 37, H: 6, K: 2, D: 13 },
  { B: 1, T: 19, S: 11, H: 2, K: 1, D: 8 },
]
const forms: Options[] = [
  { keepWindowSize: 4 },
  { keepWindowSize: 1 },
  { keepWindowSize: 4, isCausal: false },
  { addBias: false, keepWindowSize: 6, softmaxScale: 0.8 },
  { maskKind: 'relu' },
  { maskKind: 'relu', isCausal: false },
  { keepWindowSize: 9, blockSize: 4 },
  { keepWindowSize: 9, blockSize: 3, isCausal: false },
  { maskKind: 'relu', blockSize: 2 },
  { maskKind: 'relu', blockSize: 5, isCausal: false },
  {},
]

describe.each(usableBackends)('dynamicMaskAttention, %s', (backend) => {
  test.each(forms)('sees the keys that create_mask leaves: %o', async (form) => {
    for (const size of sizes) {
      for (const shape of ['one', 'each'] as const) {
        for (const heads of ['K', 'H', '1'] as const) await compare(size, shape, heads, { ...form, backend })
      }
    }
  })

  test('nothing to see, nothing to ask, no one to ask', async () => {
    for (const size of [{ S: 0 }, { T: 0 }, { B: 0 }]) await compare(size, 'one', 'K', { backend })
    const { q, k, v } = samples(sizesOf({}), 1)
    const hidden = new Tensor('float32', new Float32Array(14).fill(Number.NEGATIVE_INFINITY), [1, 2, 1, 7])
    const { output, lse } = await dynamicMaskAttention(q.tensor, k.tensor, v.tensor, hidden, {
      backend,
      returnLse: true,
    })
    expect(output.data).toEqual(new Float32Array(48))
    expect(lse.data).toEqual(new Float32Array(6).fill(Number.NEGATIVE_INFINITY))
  })

  test('f16 and bf16', async () => {
    for (const storage of ['f16', 'bf16'] as const) {
      const size = sizesOf({ T: 20, S: 20, H: 4, K: 2 })
      const { q, k, v, numbers } = samples(size, 1, storage)
      const bias = biasOf([1, 2, 1, 20])
      const options = {
        keepWindowSize: 3,
        dtype: storage === 'bf16' ? storage : undefined,
        backend,
        returnLse: true,
      } as const
      const state = await dynamicMaskAttention(q.tensor, k.tensor, v.tensor, bias.tensor, options)
      const sees = ({ k: n, t, j }: Pair) => createMask(bias.row(0, n, t), (at) => at <= t, options)[j] === true
      const added = ({ k: n, j }: Pair) => bias.row(0, n, 0)[j] as number
      expectClose(state, define({ ...size, ...numbers, sees, added }), [1, 20, 4, 8])
    }
  })
})

test('what does not fit is refused', async () => {
  const { q, k, v } = samples(sizesOf({ H: 4, K: 2 }), 1)
  const good = sample(1, [1, 2, 3, 7]).tensor
  const refuse = async (options: object, message: RegExp, bias = good) => {
    await expect(dynamicMaskAttention(q.tensor, k.tensor, v.tensor, bias, options)).rejects.toThrow(message)
  }
  await refuse({}, /\[1 or 1, 2 or 4 or 1, 3 or 1, 7\] for bias, got \[1, 3, 3, 7\]/, sample(1, [1, 3, 3, 7]).tensor)
  await refuse({}, /for bias, got \[1, 2, 2, 7\]/, sample(1, [1, 2, 2, 7]).tensor)
  await refuse({}, /\[any, any, any, 7\] for bias, got \[1, 2, 3, 6\]/, sample(1, [1, 2, 3, 6]).tensor)
  await refuse({}, /bias, got NaN/, new Tensor('float32', new Float32Array(42).fill(Number.NaN), [1, 2, 3, 7]))
  await refuse({ keepWindowSize: 0 }, /keepWindowSize, got 0/)
  await refuse({ blockSize: 0 }, /blockSize, got 0/)
  await refuse({ maskKind: 'top-k' }, /one of "topk", "relu" for maskKind, got "top-k" \(did you mean "topk"\?\)/)
  await refuse({ softmaxScale: Number.NaN }, /softmaxScale, got NaN/)
  await refuse({ keepWindow: 3 }, /unknown option "keepWindow"/)
})

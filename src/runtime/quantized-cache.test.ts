import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { readdirSync } from 'node:fs'
import { cp, mkdtemp, open, readdir, readFile, rm, stat, truncate, utimes, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it, vi } from 'vitest'
import { writeDecoderCheckpoint } from '../onnx/testing/decoder-checkpoint.ts'
import { decoderLogits } from '../onnx/testing/decoder-reference.ts'
import { type DogeCheckpoint, writeDogeCheckpoint } from '../onnx/testing/doge-checkpoint.ts'
import { loadModel } from './load-model.ts'

let checkpoint: DogeCheckpoint
let cache = ''
const tokens = Array.from({ length: 24 }, (_, i) => (i * 41) % 250)
let exact: Float32Array

beforeAll(async () => {
  checkpoint = await writeDogeCheckpoint({ hidden: 64, intermediate: 96, headDim: 16, tied: true })
  exact = await logitsOf()
})
afterAll(() => rm(checkpoint.folder, { recursive: true }))
beforeEach(async () => {
  cache = await mkdtemp(join(tmpdir(), 'kvasir-cache-'))
  vi.stubEnv('KVASIR_CACHE', cache)
})
afterEach(async () => {
  vi.unstubAllEnvs()
  await rm(cache, { recursive: true })
})

async function logitsOf(quantize?: 'int8' | 'int4', folder = checkpoint.folder): Promise<Float32Array> {
  const model = await loadModel(folder, { threads: 1, ...(quantize && { quantize }) })
  const { data } = await model.forward([{ cache: model.createCache(), tokens, logitsOf: tokens.map((_, i) => i) }])
  await model.dispose()
  return data as Float32Array
}

/** Root mean square of the difference over that of the exact logits. */
function distance(logits: Float32Array): number {
  let [error, size] = [0, 0]
  for (const [i, value] of exact.entries()) {
    error += (logits[i]! - value) ** 2
    size += value ** 2
  }
  return Math.sqrt(error / size)
}

/** Folders of quantized weights. */
async function entries(): Promise<string[]> {
  return (await readdir(cache)).filter((name) => name !== 'digests')
}

async function cachedFile(name: string): Promise<string> {
  const [folder] = await entries()
  return join(cache, folder!, name)
}

describe('quantized weights', () => {
  it('change the logits a little, int4 more than int8', async () => {
    const [int8, int4] = [distance(await logitsOf('int8')), distance(await logitsOf('int4'))]
    expect(int8).toBeGreaterThan(1e-5)
    expect(int8).toBeLessThan(0.06)
    expect(int4).toBeGreaterThan(2 * int8)
    expect(int4).toBeLessThan(0.5)
  })

  it('are made once and used again', async () => {
    const first = await logitsOf('int4')
    const file = await cachedFile('int4.safetensors')
    const { mtimeMs } = await stat(file)
    expect(await logitsOf('int4')).toEqual(first)
    expect((await stat(file)).mtimeMs).toBe(mtimeMs)
    expect((await readdir(join(file, '..'))).sort()).toEqual(['int4.json', 'int4.safetensors'])
  })

  const damages: Record<string, (file: string) => Promise<void>> = {
    'cut off': async (file) => truncate(file, (await stat(file)).size - 1),
    emptied: (file) => truncate(file, 0),
    'changed in one bit': async (file) => {
      const handle = await open(file, 'r+')
      const byte = new Uint8Array(1)
      const { size } = await handle.stat()
      await handle.read(byte, 0, 1, size - 100)
      byte[0]! ^= 1
      await handle.write(byte, 0, 1, size - 100)
      await handle.close()
    },
    deleted: (file) => rm(file),
    'left without a manifest': (file) => rm(file.replace('.safetensors', '.json')),
    'left with half a manifest': (file) => writeFile(file.replace('.safetensors', '.json'), '{"size":'),
  }
  for (const [name, damage] of Object.entries(damages)) {
    it(`are made again when they were ${name}`, async () => {
      const first = await logitsOf('int4')
      const file = await cachedFile('int4.safetensors')
      const whole = await readFile(file)
      await damage(file)
      expect(await logitsOf('int4')).toEqual(first)
      expect(await readFile(file)).toEqual(whole)
    })
  }

  it('belong to the content of a checkpoint, wherever it lies', async () => {
    const first = await logitsOf('int8')
    const copy = await mkdtemp(join(tmpdir(), 'kvasir-copy-'))
    await cp(checkpoint.folder, copy, { recursive: true })
    const file = join(copy, 'model.safetensors')
    const { size } = await stat(file)
    await utimes(file, 1e9, 1e9)
    expect(await logitsOf('int8', copy)).toEqual(first)
    expect(await entries()).toHaveLength(1)

    const handle = await open(file, 'r+')
    await handle.write(new Uint8Array([1, 2]), 0, 2, size - 4096)
    await handle.close()
    await utimes(file, 1e9, 1e9) // as if it had not been touched
    await logitsOf('int8', copy)
    expect(await entries()).toHaveLength(2)
    await rm(copy, { recursive: true })
  })

  it('are right when several loads make them at once', async () => {
    const all = await Promise.all([logitsOf('int4'), logitsOf('int4'), logitsOf('int4')])
    expect(all[1]).toEqual(all[0])
    expect(all[2]).toEqual(all[0])
    expect((await readdir(join(await cachedFile('.')))).sort()).toEqual(['int4.json', 'int4.safetensors'])
  })

  it('are whole after a process was killed while it made them', async () => {
    const large = await writeDogeCheckpoint({ hidden: 128, intermediate: 512, headDim: 32, tied: true })
    const script = join(large.folder, 'quantize.mts')
    const code = `import { loadModel } from ${JSON.stringify(join(import.meta.dirname, 'load-model.ts'))}
await loadModel(${JSON.stringify(large.folder)}, { threads: 1, quantize: 'int4' })
process.exit()`
    await writeFile(script, code)
    const child = spawn(process.execPath, ['--import', 'tsx', script], { env: { ...process.env, KVASIR_CACHE: cache } })
    // Nothing may come between what is seen and the kill.
    const half = (): string[] => {
      const names = readdirSync(cache, { recursive: true }) as string[]
      return names.filter((name) => name.includes('int4') && name.endsWith('.tmp'))
    }
    const exit = once(child, 'exit')
    while (half().length === 0 && child.exitCode === null) await new Promise(setImmediate)
    child.kill('SIGKILL')
    await exit
    const [left] = half()
    expect(left, 'the process was to be killed before it was done').toBeDefined()
    await utimes(join(cache, left!), 1e9, 1e9)
    const after = await logitsOf('int4', large.folder)
    expect((await readdir(await cachedFile('.'))).sort()).toEqual(['int4.json', 'int4.safetensors'])
    await rm(cache, { recursive: true })
    expect(await logitsOf('int4', large.folder)).toEqual(after)
    await rm(large.folder, { recursive: true })
  })

  it('are as good from shards, and from parts of a fused projection', async () => {
    const options = { dtype: 'BF16', config: { hidden_size: 64 } } as const
    const whole = await writeDecoderCheckpoint('phi3', options)
    const sharded = await writeDecoderCheckpoint('phi3', { ...options, shards: 3 })
    const fromWhole = await logitsOf('int8', whole.folder)
    expect(await logitsOf('int8', sharded.folder)).toEqual(fromWhole)
    const exactLogits = decoderLogits(whole, tokens).flat()
    const squares = (values: readonly number[]) => values.reduce((sum, value) => sum + value ** 2, 0)
    const error = squares(exactLogits.map((value, i) => fromWhole[i]! - value)) / squares(exactLogits)
    expect(Math.sqrt(error)).toBeLessThan(0.06)
    expect(Math.sqrt(error)).toBeGreaterThan(1e-4)
    for (const { folder } of [whole, sharded]) await rm(folder, { recursive: true })
  })

  it('are refused with a reason when the cache folder cannot be written', async () => {
    vi.stubEnv('KVASIR_CACHE', join(checkpoint.folder, 'config.json'))
    await expect(logitsOf('int4')).rejects.toThrow('expected to write quantized weights to')
  })

  it('count the same parameters in fewer bytes', async () => {
    const model = await loadModel(checkpoint.folder, { threads: 1, quantize: 'int4' })
    const plain = await loadModel(checkpoint.folder, { threads: 1 })
    expect(model.describe().parameters).toBe(plain.describe().parameters)
    // The embedding stays as it is for lookups and is quantized besides, as lm_head.
    const embedding = 260 * 64 * 4
    expect(model.describe().weightBytes - embedding).toBeLessThan(0.25 * plain.describe().weightBytes)
    await Promise.all([model.dispose(), plain.dispose()])
  })
})

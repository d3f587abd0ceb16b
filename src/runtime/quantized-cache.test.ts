import { mkdtemp, open, readdir, readFile, rm, stat, truncate, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it, vi } from 'vitest'
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

async function logitsOf(quantize?: 'int8' | 'int4'): Promise<Float32Array> {
  const model = await loadModel(checkpoint.folder, { threads: 1, ...(quantize && { quantize }) })
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

async function cachedFile(name: string): Promise<string> {
  const [folder] = await readdir(cache)
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

  it('are made again when the checkpoint changes', async () => {
    await logitsOf('int8')
    const source = join(checkpoint.folder, 'model.safetensors')
    await writeFile(source, await readFile(source))
    await logitsOf('int8')
    expect((await readdir(cache)).length).toBe(2)
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

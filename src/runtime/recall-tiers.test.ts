/** Tokens that come back from tiers, in a model's own thread and in this one; what a tier that fails costs. */
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { openTiers } from '../cache/tiers/open-tiers.ts'
import { startRedis, withoutRedis } from '../cache/tiers/testing/redis-server.ts'
import { type DogeCheckpoint, writeDogeCheckpoint } from '../onnx/testing/doge-checkpoint.ts'
import type { CausalLM, LoadOptions } from './contract.ts'
import { loadModel } from './open-model.ts'

let checkpoint: DogeCheckpoint
let folder = ''
const opened: CausalLM[] = []
beforeAll(async () => {
  checkpoint = await writeDogeCheckpoint()
  folder = await mkdtemp(join(tmpdir(), 'kvasir-recall-'))
})
afterAll(async () => {
  for (const model of opened) await model.dispose()
  for (const path of [checkpoint.folder, folder]) await rm(path, { recursive: true })
})

const common: LoadOptions = { threads: 1, policy: 'streaming', window: 24, recall: 3 }
const prompt = Array.from({ length: 200 }, (_, i) => (i * 37 + 5) % 250)
const written = { maxNewTokens: 12, ignoreEos: true, logprobs: 2 } as const

async function load(options: LoadOptions): Promise<CausalLM> {
  const model = await loadModel(checkpoint.folder, { ...common, ...options })
  opened.push(model)
  return model
}

/** What is written, and how many pages came back and failed to. */
async function write(model: CausalLM) {
  const cache = model.createCache()
  const { tokens, logprobs } = await model.generate(prompt, { ...written, cache })
  const { layers, info } = await model.explainCache(cache)
  const sum = (field: 'recalled' | 'missed') => layers.reduce((total, { recall }) => total + (recall?.[field] ?? 0), 0)
  cache.dispose()
  return { tokens, logprobs, recalled: sum('recalled'), missed: sum('missed'), info }
}

const without = async () => await write(await load({ recall: undefined as never, worker: false }))

describe.each([true, false])('with worker: %s', (worker) => {
  it('pages on disk give the bits of pages in RAM, and leave the disk with their cache', async () => {
    const disk = join(folder, `disk ${worker}`)
    const inRam = await write(await load({ worker }))
    const model = await load({ worker, recallTiers: [{ kind: 'disk', path: disk }] })
    const onDisk = await write(model)
    expect(onDisk).toMatchObject({ tokens: inRam.tokens, logprobs: inRam.logprobs, missed: 0 })
    expect(onDisk.recalled).toBe(inRam.recalled)
    expect(onDisk.recalled).toBeGreaterThan(50)
    expect(onDisk.info.bytes).toBeLessThan(inRam.info.bytes) // pages on disk are no bytes of RAM
    expect((await without()).logprobs).not.toEqual(inRam.logprobs)
    await model.dispose()
    const left = await openTiers([{ kind: 'disk', path: disk }])
    expect(left.stats()[0]?.entries).toBe(0)
    await left.close()
  })

  it.skipIf(withoutRedis)('a server that dies costs that pages do not come back, and no more', async () => {
    const server = await startRedis()
    const recallTiers = [{ kind: 'redis', url: server.url, timeoutMs: 20_000 }] as const
    const model = await load({ worker, recallTiers })
    expect((await write(model)).tokens).toEqual((await write(await load({ worker }))).tokens)
    const noRam = await load({
      worker,
      recallTiers: [
        { kind: 'ram', maxBytes: 1 },
        { ...recallTiers[0], timeoutMs: 50 },
      ],
    })
    await server.stop()
    const alone = await write(noRam)
    expect(alone.recalled).toBe(0)
    expect(alone.missed).toBeGreaterThan(0)
    expect(alone.tokens).toHaveLength(12)
    expect(alone.logprobs?.every(({ logprob }) => Number.isFinite(logprob))).toBe(true)
  })

  it('a folder that is a file is refused when the model is loaded, and so are tiers for nothing', async () => {
    await mkdir(join(folder, 'x'), { recursive: true })
    const file = join(folder, 'x', 'file')
    await writeFile(file, '')
    await expect(load({ worker, recallTiers: [{ kind: 'disk', path: file }] })).rejects.toThrow(/expected a folder/)
    const recallTiers = [{ kind: 'ram' }] as const
    await expect(load({ worker, recall: undefined as never, recallTiers })).rejects.toThrow(/give recall/)
    await expect(load({ worker, recallTiers: [{ kind: 'tape' } as never] })).rejects.toThrow(/the kind of a tier/)
  })
})

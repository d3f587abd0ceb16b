/** Who may have which model, from a server that speaks the hub's API: no other network is used. */
import { mkdir, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import { type DogeCheckpoint, writeDogeCheckpoint } from '../../onnx/testing/doge-checkpoint.ts'
import { loadModel } from '../open-model.ts'
import { downloadModel } from './download-model.ts'
import { commit, model, useHub } from './testing/small-hub.ts'

const { start, stop, home } = useHub()

describe('access', () => {
  it('is refused without the token, and given with it; storage elsewhere never sees it', async () => {
    const { requests } = await start({ token: 'hf_secret' })
    await expect(downloadModel(model)).rejects.toMatchObject({ code: 'denied' })
    await expect(downloadModel(model)).rejects.toThrow('got 401: it is private, gated or not there; set HF_TOKEN')
    vi.stubEnv('HF_TOKEN', 'unlike a token')
    await expect(downloadModel(model)).rejects.toMatchObject({ code: 'invalid-argument' })
    vi.stubEnv('HF_TOKEN', 'hf_wrong')
    await expect(downloadModel(model)).rejects.toThrow('the token in HF_TOKEN gives no access')
    vi.stubEnv('HF_TOKEN', '')
    await writeFile(join(home(), 'token'), 'hf_secret\n')
    await downloadModel(model)
    const tokens = new Map(requests.map(({ path, authorization }) => [path, authorization]))
    expect(tokens.get('config.json')).toBe('Bearer hf_secret')
    expect(tokens.get('model.safetensors')).toBeUndefined()
  })

  it('to what is not there says what is not there', async () => {
    await start()
    await expect(downloadModel('someone/else')).rejects.toMatchObject({ code: 'not-found' })
    await expect(downloadModel(model, { revision: 'v9' })).rejects.toThrow('got none at the hub: Invalid rev id')
    await expect(downloadModel(model, { dtype: 'fp16' })).rejects.toThrow(
      'expected ONNX weights of dtype "fp16" in someone/small-model, got q4',
    )
    await expect(loadModel('someone/else')).rejects.toThrow('(nor is there a folder someone/else here)')
  })
})

describe('offline', () => {
  it('what was downloaded is used: when told so, and when the hub cannot be reached', async () => {
    await start()
    vi.stubEnv('HF_HUB_OFFLINE', '1')
    await expect(downloadModel(model)).rejects.toThrow('HF_HUB_OFFLINE forbids to download it')
    vi.stubEnv('HF_HUB_OFFLINE', '')
    const path = await downloadModel(model, { revision: 'v2' })
    await stop()
    expect(await downloadModel(model, { revision: 'v2' })).toBe(path)
    vi.stubEnv('HF_HUB_OFFLINE', 'true')
    expect(await downloadModel(model, { revision: 'v2' })).toBe(path)
    expect(await downloadModel(model, { revision: commit })).toBe(path)
    await expect(downloadModel(model)).rejects.toMatchObject({ code: 'not-found' })
    await expect(downloadModel(model, { revision: 'v2', dtype: 'q4' })).rejects.toMatchObject({ code: 'not-found' })
    vi.stubEnv('HF_HUB_OFFLINE', '')
    await expect(downloadModel('someone/else')).rejects.toMatchObject({ code: 'unreachable' })
  })
})

describe('a model of the hub', () => {
  let checkpoint: DogeCheckpoint
  beforeEach(async () => {
    checkpoint = await writeDogeCheckpoint({ layers: 1, shards: 2 })
  })
  afterEach(() => rm(checkpoint.folder, { recursive: true }))

  it('is loaded by its id; a folder of that name goes first', async () => {
    const names = await readdir(checkpoint.folder)
    const contents = await Promise.all(names.map((name) => readFile(join(checkpoint.folder, name))))
    await start({
      files: Object.fromEntries(names.map((name, i) => [name, contents[i]!])),
      large: names.filter((name) => name.endsWith('safetensors')),
    })
    const local = await loadModel(checkpoint.folder, { threads: 1, worker: false })
    const remote = await loadModel(model, { threads: 1 })
    const options = { maxNewTokens: 5, ignoreEos: true }
    expect((await remote.generate('Hello', options)).tokens).toEqual((await local.generate('Hello', options)).tokens)
    await Promise.all([local.dispose(), remote.dispose()])
    const before = process.cwd()
    await mkdir(join(home(), 'someone/small-model'), { recursive: true })
    process.chdir(home())
    await expect(loadModel(model, { worker: false })).rejects.toMatchObject({ code: 'not-found', area: 'onnx' })
    process.chdir(before)
  })
})

/** Downloads from a server that speaks the hub's API: no other network is used. */
import { mkdir, mkdtemp, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import { type DogeCheckpoint, writeDogeCheckpoint } from '../../onnx/testing/doge-checkpoint.ts'
import type { DownloadProgress } from '../contract.ts'
import { loadModel } from '../open-model.ts'
import { downloadModel, isModelId } from './download-model.ts'
import { type HubServer, type HubServerOptions, startHub } from './testing/hub-server.ts'

const commit = '0123456789abcdef0123456789abcdef01234567'
const model = 'someone/small-model'
const weights = Buffer.from(Uint8Array.from({ length: 200_000 }, (_, i) => (i * 31) >> 3))
const files = {
  'config.json': Buffer.from('{"model_type": "doge"}'),
  'tokenizer.json': Buffer.from('{}'),
  'README.md': Buffer.from('not wanted'),
  'model.safetensors': weights,
  'onnx/model_q4.onnx': Buffer.from('graph'),
  'onnx/model_q4.onnx_data': Buffer.from('data'),
}

let home = ''
let server: HubServer | undefined
beforeEach(async () => {
  home = await mkdtemp(join(tmpdir(), 'kvasir-hub-'))
  for (const name of ['KVASIR_CACHE', 'HF_HUB_CACHE', 'HF_TOKEN', 'HF_HUB_OFFLINE']) vi.stubEnv(name, '')
  vi.stubEnv('HF_HOME', home)
})
afterEach(async () => {
  vi.unstubAllEnvs()
  await server?.close()
  server = undefined
  await rm(home, { recursive: true })
})

async function start(options: Partial<HubServerOptions> = {}): Promise<HubServer> {
  server = await startHub({ model, commit, files, large: ['model.safetensors'], ...options })
  vi.stubEnv('HF_ENDPOINT', server.endpoint)
  return server
}

/** Compared at once: a matcher would go through it byte by byte. */
const isWhole = async (path: string) => weights.equals(await readFile(join(path, 'model.safetensors')))

const folder = () => join(home, 'hub', 'models--someone--small-model')

describe('a download', () => {
  it('brings what the model needs, in the layout that the Hugging Face tools share', async () => {
    await start()
    const path = await downloadModel(model)
    expect(path).toBe(join(folder(), 'snapshots', commit))
    expect((await readdir(path)).sort()).toEqual(['config.json', 'model.safetensors', 'tokenizer.json'])
    expect(await isWhole(path)).toBe(true)
    expect(await readFile(join(folder(), 'refs/main'), 'utf8')).toBe(commit)
    expect(await readdir(join(folder(), 'blobs'))).toHaveLength(3)
  })

  it('asks for a file once, and says how far it is', async () => {
    const { requests } = await start()
    const seen: DownloadProgress[] = []
    await downloadModel(model, { onDownload: (progress) => seen.push(progress) })
    const count = requests.length
    const size = weights.length + files['config.json'].length + files['tokenizer.json'].length
    expect(seen.at(-1)).toMatchObject({ bytes: size, size, fileBytes: weights.length })
    expect(seen.every(({ bytes }, i) => i === 0 || bytes >= seen[i - 1]!.bytes)).toBe(true)
    await downloadModel(model)
    expect(requests.length).toBe(count)
    await Promise.all([
      rm(join(folder(), 'blobs'), { recursive: true }),
      rm(join(folder(), 'snapshots'), { recursive: true }),
    ])
    await Promise.all([downloadModel(model), downloadModel(model)])
    expect(requests.filter(({ path }) => path === 'model.safetensors')).toHaveLength(2)
  })

  it('goes on where the connection broke, again and again', async () => {
    const { requests, breaks } = await start()
    breaks.set('model.safetensors', [50_000, 20_000, 1])
    const path = await downloadModel(model)
    expect(await isWhole(path)).toBe(true)
    const ranges = requests.filter(({ path }) => path === 'model.safetensors').map(({ range }) => range)
    expect(ranges).toEqual([undefined, 'bytes=50000-', 'bytes=70000-', 'bytes=70001-'])
  })

  it('goes on where an earlier process ended, and begins anew when that was too much', async () => {
    const { requests } = await start()
    await downloadModel(model)
    const blob = (
      await Promise.all(
        (
          await readdir(join(folder(), 'blobs'))
        ).map(async (name) => {
          const file = join(folder(), 'blobs', name)
          return { file, size: (await stat(file)).size }
        }),
      )
    ).find(({ size }) => size === weights.length)!.file
    for (const [left, range] of [
      [weights.subarray(0, 1234), 'bytes=1234-'],
      [Buffer.concat([weights, weights]), undefined],
    ] as const) {
      await rm(blob)
      await writeFile(`${blob}.incomplete`, left)
      requests.length = 0
      const path = await downloadModel(model)
      expect(requests.map((request) => request.range)).toEqual([range])
      expect(await isWhole(path)).toBe(true)
    }
  })

  it('takes the whole file from a server that gives no parts', async () => {
    const { breaks, requests } = await start({ hasRanges: false })
    breaks.set('model.safetensors', [50_000])
    const path = await downloadModel(model)
    expect(await isWhole(path)).toBe(true)
    expect(requests.at(-1)!.range).toBe('bytes=50000-')
  })

  it('tries again when the server is busy, and gives up after a while', async () => {
    const { statuses, requests } = await start()
    statuses.set('tokenizer.json', [503, 500])
    await downloadModel(model)
    expect(requests.filter(({ path }) => path === 'tokenizer.json')).toHaveLength(3)
    statuses.set('onnx/model_q4.onnx', [500, 500, 500, 500, 500, 500])
    await expect(downloadModel(model, { dtype: 'q4' })).rejects.toMatchObject({ code: 'unreachable' })
    expect(requests.filter(({ path }) => path === 'onnx/model_q4.onnx')).toHaveLength(5)
  }, 60_000)

  it('refuses content that is not what the hub lists, by hash and by size, and keeps none of it', async () => {
    for (const list of [
      (entry: Record<string, unknown>) =>
        entry.path === 'model.safetensors'
          ? { ...entry, lfs: { ...(entry.lfs as object), oid: 'ab'.repeat(32) } }
          : entry,
      (entry: Record<string, unknown>) =>
        entry.path === 'tokenizer.json' ? { ...entry, oid: 'cd'.repeat(20) } : entry,
      (entry: Record<string, unknown>) => (entry.path === 'model.safetensors' ? { ...entry, size: 100 } : entry),
    ]) {
      await start({ list })
      await expect(downloadModel(model)).rejects.toMatchObject({ code: 'invalid-file' })
      expect(await readdir(join(folder(), 'refs')).catch(() => [])).toEqual([])
      await server!.close()
    }
    const blobs = await readdir(join(folder(), 'blobs'))
    expect(blobs).not.toContain('ab'.repeat(32))
    expect(blobs).not.toContain('cd'.repeat(20))
  })

  it('refuses names that lead out of its folder', async () => {
    for (const path of ['additional_chat_templates/..', '../model.safetensors', '/config.json']) {
      await start({
        list: (entry) => (entry.path === 'config.json' ? { ...entry, path } : entry),
        files: { ...files, 'config.json': Buffer.from('{}') },
      })
      await expect(downloadModel(model)).rejects.toMatchObject({ code: 'not-found' }) // no config.json is left
      await server!.close()
    }
    await start({ list: (entry) => ({ ...entry, oid: '../../../../evil' }) })
    await expect(downloadModel(model)).rejects.toMatchObject({ code: 'invalid-file' })
    await expect(downloadModel('../evil')).rejects.toMatchObject({ code: 'invalid-argument' })
    await expect(downloadModel(model, { revision: '../../x' })).rejects.toMatchObject({ code: 'invalid-argument' })
    expect(['a/b', 'a/b.c-d_1'].map(isModelId)).toEqual([true, true])
    expect(['a', 'a/b/c', '../b', './b', '/a/b', 'a/..', 'a/b..c'].some(isModelId)).toBe(false)
  })

  it('can be aborted, and goes on later', async () => {
    const { requests, breaks } = await start()
    breaks.set('model.safetensors', [60_000])
    const stop = new AbortController()
    const onDownload = ({ fileBytes }: DownloadProgress) => fileBytes >= 50_000 && stop.abort()
    await expect(downloadModel(model, { signal: stop.signal, onDownload })).rejects.toMatchObject({ code: 'aborted' })
    const path = await downloadModel(model)
    expect(await isWhole(path)).toBe(true)
    expect(requests.at(-1)!.range).toMatch(/^bytes=\d+-$/)
  })
})

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
    await writeFile(join(home, 'token'), 'hf_secret\n')
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
    await server!.close()
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
    await mkdir(join(home, 'someone/small-model'), { recursive: true })
    process.chdir(home)
    await expect(loadModel(model, { worker: false })).rejects.toMatchObject({ code: 'not-found', area: 'onnx' })
    process.chdir(before)
  })
})

/** How files come, from a server that speaks the hub's API: no other network is used. */
import { readdir, readFile, rm, stat, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import type { DownloadProgress } from '../contract.ts'
import { downloadModel, isModelId } from './download-model.ts'
import { commit, files, isWhole, model, useHub, weights } from './testing/small-hub.ts'

const { start, stop, folder } = useHub()

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
      await stop()
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
      await stop()
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
    const abort = new AbortController()
    const onDownload = ({ fileBytes }: DownloadProgress) => fileBytes >= 50_000 && abort.abort()
    await expect(downloadModel(model, { signal: abort.signal, onDownload })).rejects.toMatchObject({ code: 'aborted' })
    const path = await downloadModel(model)
    expect(await isWhole(path)).toBe(true)
    expect(requests.at(-1)!.range).toMatch(/^bytes=\d+-$/)
  })
})

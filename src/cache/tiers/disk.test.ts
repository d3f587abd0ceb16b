import { spawn, spawnSync } from 'node:child_process'
import { mkdir, mkdtemp, open, readFile, rm, stat, truncate, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import type { Worker } from 'node:worker_threads'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { openTiers } from './open-tiers.ts'
import { blobOf, bodyOf } from './testing/blobs.ts'
import { startThread } from './testing/disk-thread.ts'

const script = fileURLToPath(new URL('./testing/disk-process.ts', import.meta.url))
let folder = ''
let count = 0
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'kvasir-disk-'))
})
afterAll(() => rm(folder, { recursive: true }))

const fresh = (): string => join(folder, `${++count}`)
const openDisk = (path: string, maxBytes?: number) =>
  openTiers([{ kind: 'disk', path, ...(maxBytes !== undefined && { maxBytes }) }])

/** Runs the script until it ends, or until `ms` after its first line; returns what it printed in whole lines. */
async function run(args: readonly string[], ms?: number): Promise<string[]> {
  const child = spawn(process.execPath, ['--import', 'tsx', script, ...args], { stdio: ['ignore', 'pipe', 'inherit'] })
  let printed = ''
  child.stdout.on('data', (text: Buffer) => {
    if (printed === '' && ms !== undefined) setTimeout(() => child.kill('SIGKILL'), ms)
    printed += text.toString()
  })
  await new Promise((resolve) => child.once('close', resolve))
  return printed.split('\n').slice(0, -1)
}

function firstMessage(thread: Worker): Promise<unknown> {
  return new Promise((resolve, reject) => {
    thread.once('message', resolve)
    thread.once('error', reject)
    thread.once('exit', (code) => reject(new Error(`the thread ended with exit code ${code}`)))
  })
}

const needsMount = 'mounting a small disk takes Linux and its administrator'

/** Makes a folder a disk of 2 MiB; undefined where that can't be done. */
async function mountSmall(path: string): Promise<(() => void) | undefined> {
  await mkdir(path)
  const { status } = spawnSync('mount', ['-t', 'tmpfs', '-o', 'size=2m', 'tmpfs', path])
  return status === 0 ? () => spawnSync('umount', ['-l', path]) : undefined
}

describe('blobs on disk', () => {
  it('are there after a restart, and what was used last stays longest', async () => {
    const path = fresh()
    const first = await openDisk(path)
    for (const key of ['old', 'older', 'used']) {
      first.put([blobOf(key, 40_000)])
      await first.flush()
    }
    await first.close()
    const second = await openDisk(path, 130_000)
    expect(second.stats()[0]).toMatchObject({ entries: 3, bytes: 3 * 40_960 })
    expect((await second.get(['old']))[0]).toEqual(expect.objectContaining(bodyOf('old', 40_000)))
    second.put([blobOf('new', 40_000)])
    await second.close()
    const third = await openDisk(path, 130_000)
    expect(await third.has(['older', 'used', 'old', 'new'])).toEqual([false, false, true, true])
    await third.close()
  })

  it('of many times the cap leave a file not much larger than it', async () => {
    const path = fresh()
    const cap = 2 ** 21
    const store = await openDisk(path, cap)
    for (let i = 0; i < 100; i++) {
      store.put([blobOf(`k${i}`, 100_000 + 1000 * (i % 7))])
      await store.flush()
    }
    expect(store.stats()[0]?.bytes).toBeLessThanOrEqual(cap)
    await store.close()
    expect((await stat(join(path, 'data.mdb'))).size).toBeLessThan(2 * cap)
  })

  it('are shared with another process while both run', async () => {
    const path = fresh()
    const store = await openDisk(path)
    const [key] = await run(['write', path, 'theirs', '1', '50000'])
    expect(key).toBe('theirs-0-0')
    expect((await store.get(['theirs-0-0']))[0]).toEqual(expect.objectContaining(bodyOf('theirs-0-0', 50_000)))
    store.put([blobOf('ours', 70_000)])
    await store.flush()
    expect(await run(['read', path, 'ours', '70000'])).toEqual(['right'])
    await store.close()
  })

  it('are shared with a thread', async () => {
    const path = fresh()
    const store = await openDisk(path)
    store.put([blobOf('ours', 3000)])
    await store.flush()
    const thread = startThread(['read', path, 'ours', '3000'])
    const ended = new Promise((resolve) => thread.once('exit', resolve))
    expect(await firstMessage(thread)).toBe('right')
    expect(await ended).toBe(0)
    expect((await store.get(['ours']))[0]?.length).toBe(3000)
    await store.close()
  })

  it('that were acknowledged survive a process that ends itself while its threads write, which ends at once', async () => {
    for (let round = 0; round < 3; round++) {
      const folders = Array.from({ length: 4 }, fresh)
      const acknowledged = await run(['exit', ...folders])
      expect(acknowledged.length).toBeGreaterThan(0)
      for (const path of folders) {
        const store = await openDisk(path)
        const [first] = await store.get([acknowledged[0]!])
        expect(first && Buffer.compare(first, bodyOf(acknowledged[0]!, 100))).toBe(0)
        await store.close()
      }
    }
  })

  it('that were acknowledged survive a process that is killed at any moment', async () => {
    const path = fresh()
    let total = 0
    for (let round = 0; round < 4; round++) {
      const acknowledged = await run(['write', path, `r${round}`, '100000', '30000'], 20 + Math.random() * 150)
      expect(acknowledged.length).toBeGreaterThan(0)
      const store = await openDisk(path)
      const read = await store.get(acknowledged)
      for (const [i, key] of acknowledged.entries()) {
        expect(read[i] && Buffer.compare(read[i], bodyOf(key, 30_000)), key).toBe(0)
      }
      total += acknowledged.length
      expect(store.stats()[0]?.corrupt).toBe(0)
      await store.close()
    }
    expect(total).toBeGreaterThan(4)
  })

  it('cost a time-out while another process stands still in a write, and are written when it goes on', async () => {
    const path = fresh()
    const store = await openTiers([{ kind: 'disk', path, timeoutMs: 100 }])
    const other = spawn(process.execPath, ['--import', 'tsx', script, 'hold', path, '4000'], {
      stdio: ['ignore', 'pipe', 'inherit'],
    })
    const ended = new Promise((resolve) => other.once('close', resolve))
    await new Promise((resolve) => other.stdout.once('data', resolve))
    const began = performance.now()
    for (const key of ['late', 'refused']) {
      store.put([blobOf(key, 1000)])
      expect(await store.flush()).toEqual([key])
    }
    expect(performance.now() - began).toBeLessThan(3500) // before the other goes on
    expect(store.stats()[0]).toMatchObject({ dropped: 2, failures: 2, written: 0 })
    await ended
    const written = async () => {
      store.put([blobOf('then', 1000)])
      return await store.flush()
    }
    await expect.poll(written, { timeout: 10_000 }).toEqual([])
    expect(await store.has(['then', 'refused'])).toEqual([true, false])
    await store.close()
  })

  it('that wait beyond the bound are dropped, counted, and named by flush', async () => {
    const store = await openTiers([{ kind: 'disk', path: fresh(), maxQueuedBytes: 25_000 }])
    store.put(['a', 'b', 'c', 'd'].map((key) => blobOf(key, 10_000)))
    expect(await store.flush()).toEqual(['c', 'd'])
    expect(await store.flush()).toEqual([])
    expect(store.stats()[0]).toMatchObject({ written: 2, dropped: 2, queuedBytes: 0 })
    store.put([blobOf('c', 10_000)])
    expect(await store.flush()).toEqual([])
    await store.close()
  })
})

describe('a folder that is not right', () => {
  it.each([
    ['of another kind of file', async (file: string) => writeFile(file, 'not lmdb'.repeat(2000)), 'expected a file of'],
    [
      'that was cut off',
      async (file: string) => truncate(file, 20_000),
      /expected a file of at least \d+ bytes, got 20/,
    ],
    ['cut off within its first page', async (file: string) => truncate(file, 100), 'expected a file of lmdb'],
  ])('%s is refused at opening, naming it', async (_, spoil, message) => {
    const path = fresh()
    const store = await openDisk(path)
    store.put([blobOf('a', 100_000)])
    await store.close()
    await spoil(join(path, 'data.mdb'))
    await expect(openDisk(path)).rejects.toThrow(message)
    await expect(openDisk(path)).rejects.toMatchObject({ code: 'invalid-file' })
    await expect(openDisk(path)).rejects.toThrow(path)
  })

  it('but for some pages at its end is refused, or costs what was in these', async () => {
    const answers = new Set<string>()
    for (const pages of [1, 2, 4]) {
      const path = fresh()
      const store = await openDisk(path)
      const keys = Array.from({ length: 12 }, (_, i) => `k${i}`)
      store.put(keys.map((key) => blobOf(key, 10_000)))
      await store.close()
      const file = join(path, 'data.mdb')
      const { size } = await stat(file)
      await truncate(file, size - pages * 4096)
      const again = await openTiers([{ kind: 'disk', path, timeoutMs: 500 }]).catch((error: unknown) => error)
      expect((await stat(file)).size).toBe(size)
      answers.add(again instanceof Error ? 'refused' : 'opened')
      if (again instanceof Error) expect(again).toMatchObject({ code: 'invalid-file' })
      else await useOf(again as Awaited<ReturnType<typeof openTiers>>, keys)
    }
    expect(answers).toEqual(new Set(['opened', 'refused']))
  })

  /** What is read is right or missing, what is written is written or named as lost, and it can be closed. */
  async function useOf(store: Awaited<ReturnType<typeof openTiers>>, keys: readonly string[]): Promise<void> {
    for (const [i, body] of (await store.get(keys)).entries()) {
      if (body) expect(Buffer.compare(body, bodyOf(keys[i] as string, 10_000))).toBe(0)
    }
    store.put([blobOf('new', 10_000)])
    const lost = await store.flush()
    expect(store.stats()[0]).toMatchObject({ dropped: lost.length, written: 1 - lost.length })
    await store.close()
  }

  it('because it is a file, or below one, is refused', async () => {
    const path = fresh()
    await writeFile(path, '')
    for (const wrong of [path, join(path, 'below')]) {
      await expect(openDisk(wrong)).rejects.toThrow(/expected a folder that can be read and written .*, got /)
    }
  })

  it('where nothing may be written is refused as denied', async (context) => {
    const path = fresh()
    const unmount = await mountSmall(path)
    if (!unmount) context.skip(needsMount)
    try {
      spawnSync('mount', ['-o', 'remount,ro', path])
      await expect(openDisk(path)).rejects.toThrow('expected a folder that can be read and written')
      await expect(openDisk(path)).rejects.toMatchObject({ code: 'denied' })
    } finally {
      unmount?.()
    }
  })

  it('with entries of flipped bits costs misses of these entries', async () => {
    const path = fresh()
    const store = await openDisk(path)
    const keys = ['a', 'b', 'c']
    store.put(keys.map((key) => blobOf(key, 100_000)))
    await store.close()
    const file = join(path, 'data.mdb')
    const at = (await readFile(file)).indexOf(bodyOf('b', 100_000).subarray(50_000, 50_100))
    const handle = await open(file, 'r+')
    await handle.write(Uint8Array.of((bodyOf('b', 100_000)[50_003] as number) ^ 4), 0, 1, at + 3)
    await handle.close()
    const again = await openDisk(path)
    expect((await again.get(keys)).map((body) => body?.length)).toEqual([100_000, undefined, 100_000])
    expect(again.stats()[0]).toMatchObject({ corrupt: 1, hits: 2, misses: 1 })
    await again.flush()
    expect(await again.has(keys)).toEqual([true, false, true])
    await again.close()
  })

  it('on a disk that is full loses what does not fit, says so, and reads on', async (context) => {
    const path = fresh()
    const unmount = await mountSmall(path)
    if (!unmount) context.skip(needsMount)
    try {
      const store = await openDisk(path)
      store.put([blobOf('fits', 200_000)])
      expect(await store.flush()).toEqual([])
      store.put([blobOf('large', 4_000_000)])
      expect(await store.flush()).toEqual(['large'])
      expect(store.stats()[0]).toMatchObject({ dropped: 1, failures: 1 })
      expect(await store.has(['fits', 'large'])).toEqual([true, false])
      store.put([blobOf('small', 1000)])
      expect(await store.flush()).toEqual([])
      await store.close()
      const again = await openDisk(path)
      expect((await again.get(['fits', 'small'])).map((body) => body?.length)).toEqual([200_000, 1000])
      await again.close()
    } finally {
      unmount?.()
    }
  })
})

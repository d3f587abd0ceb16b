import { mkdtempSync, readdirSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, test, vi } from 'vitest'
import { DiskTier } from './disk-tier.ts'

const free = vi.hoisted(() => ({ blocks: 0 }))
vi.mock('node:fs/promises', async (original) => ({
  ...(await original<typeof import('node:fs/promises')>()),
  statfs: async () => ({ bavail: free.blocks, bsize: 4096 }),
}))

// LMDB itself ends the process there: by SIGBUS or SIGSEGV, on a tmpfs with less than 16 KiB.
test('a full disk is refused before LMDB maps its files', async () => {
  const path = mkdtempSync(join(tmpdir(), 'kvasir-full-'))
  free.blocks = 2
  const message = expect.stringContaining('expected at least 65536 free bytes')
  await expect(DiskTier.open({ path })).rejects.toMatchObject({ code: 'unreachable', message })
  expect(readdirSync(path)).toEqual([])
  free.blocks = 16
  await (await DiskTier.open({ path })).close()
  free.blocks = 0 // what was kept can still be read
  await (await DiskTier.open({ path })).close()
  rmSync(path, { recursive: true })
})

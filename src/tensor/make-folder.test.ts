import { mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, expect, test } from 'vitest'
import { makeFolder } from './make-folder.ts'

const folder = mkdtempSync(join(tmpdir(), 'kvasir-folder-'))
afterAll(() => rmSync(folder, { recursive: true }))

test('folders in folders, once or several times at once', async () => {
  const path = join(folder, 'a', 'b', 'c')
  await Promise.all([makeFolder(path), makeFolder(path), makeFolder(join(path, 'd'))])
  await makeFolder(path)
  expect(statSync(join(path, 'd')).isDirectory()).toBe(true)
})

test('in a file', async () => {
  writeFileSync(join(folder, 'file'), '')
  await expect(makeFolder(join(folder, 'file'))).rejects.toThrow('EEXIST')
  await expect(makeFolder(join(folder, 'file', 'a'))).rejects.toThrow(/EEXIST|ENOTDIR/)
})

test.runIf(process.platform === 'linux')(
  'where there is no place for folders',
  async () => {
    await expect(makeFolder('/proc/kvasir/a')).rejects.toThrow('ENOENT')
  },
  5000,
)

import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, expect, test } from 'vitest'
import { readJson } from './checkpoint.ts'
import { openOnnxFile } from './onnx-file.ts'
import { readSafetensorsHeader } from './safetensors.ts'

const folder = mkdtempSync(join(tmpdir(), 'kvasir-open-'))
afterAll(() => rmSync(folder, { recursive: true }))
mkdirSync(join(folder, 'folder'))
symlinkSync('loop', join(folder, 'loop'))
writeFileSync(join(folder, 'file'), '')

const readers = { readJson, openOnnxFile, readSafetensorsHeader }

test.each(Object.entries(readers))('%s names what is no file of its own, and why', async (_, read) => {
  for (const [name, code, reason] of [
    ['absent', 'not-found', ''],
    ['file/below', 'not-found', ' (ENOTDIR)'],
    ['folder', 'invalid-file', ' (EISDIR)'],
    ['loop', 'invalid-file', ' (ELOOP)'],
  ] as const) {
    const path = join(folder, name)
    const message = expect.stringMatching(
      new RegExp(`expected a readable file at ${path}${reason.replace(/[()]/g, '.')}$`),
    )
    await expect(read(path)).rejects.toMatchObject({ code, message })
  }
})

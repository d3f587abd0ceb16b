import { chmodSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, expect, test } from 'vitest'
import { readOptionalJson } from './json-file.ts'

const folder = mkdtempSync(join(tmpdir(), 'kvasir-json-'))
afterAll(() => rmSync(folder, { recursive: true }))
const at = (name: string): string => join(folder, name)

test('a file that is not there is none', async () => {
  expect(await readOptionalJson(at('absent.json'))).toBeUndefined()
  writeFileSync(at('some.json'), '{"a": 1}')
  expect(await readOptionalJson(at('some.json'))).toEqual({ a: 1 })
})

test('a file that is there and holds no object is refused: what it says would be lost without a word', async () => {
  for (const [text, got] of [
    ['null', 'null'],
    ['[1]', 'an array of 1'],
    ['7', '7'],
  ] as const) {
    writeFileSync(at('other.json'), text)
    const message = `${at('other.json')}: expected an object, got ${got}`
    await expect(readOptionalJson(at('other.json'))).rejects.toThrow(message)
  }
})

test('what is there and is no file that can be read is refused', async () => {
  mkdirSync(at('folder.json'))
  symlinkSync('loop.json', at('loop.json'))
  for (const [name, reason] of [
    ['folder.json', 'EISDIR'],
    ['loop.json', 'ELOOP'],
  ] as const) {
    const failure = { code: 'invalid-file', message: expect.stringContaining(`at ${at(name)} (${reason})`) }
    await expect(readOptionalJson(at(name))).rejects.toMatchObject(failure)
  }
})

// root may read everything
test.skipIf(process.getuid?.() === 0)('a file that this user may not read is denied', async () => {
  writeFileSync(at('secret.json'), '{}')
  chmodSync(at('secret.json'), 0)
  await expect(readOptionalJson(at('secret.json'))).rejects.toMatchObject({ code: 'denied' })
})

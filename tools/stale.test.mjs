import { mkdirSync, mkdtempSync, renameSync, rmSync, utimesSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { whyInstall } from './modules.mjs'
import { isSupportedNode } from './prepare.mjs'
import { contentKey, openStamps } from './stale.mjs'

let root
beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), 'kvasir-tools-'))
  mkdirSync(join(root, 'native/src'), { recursive: true })
  writeFileSync(join(root, 'native/src/a.cc'), 'int a;')
  writeFileSync(join(root, 'native/b.cc'), 'int b;')
})
afterEach(() => rmSync(root, { recursive: true }))

const key = (...extra) => contentKey(root, ['native', 'binding.gyp'], extra)

test('the key follows content, names and tools, and no times', () => {
  const first = key('g++ 12')
  utimesSync(join(root, 'native/b.cc'), 0, 0)
  expect(key('g++ 12')).toBe(first)
  expect(key('g++ 13')).not.toBe(first)
  writeFileSync(join(root, 'native/src/a.cc'), 'int a ;')
  expect(key('g++ 12')).not.toBe(first)
  writeFileSync(join(root, 'native/src/a.cc'), 'int a;')
  expect(key('g++ 12')).toBe(first)
  writeFileSync(join(root, 'native/src/c.cc'), '')
  expect(key('g++ 12')).not.toBe(first)
})

test('a new name changes the key, and so does one file that looks like two', () => {
  const first = key()
  renameSync(join(root, 'native/b.cc'), join(root, 'native/c.cc'))
  expect(key()).not.toBe(first)
  renameSync(join(root, 'native/c.cc'), join(root, 'native/b.cc'))
  expect(key()).toBe(first)
  rmSync(join(root, 'native/src'), { recursive: true })
  writeFileSync(join(root, 'native/b.cc'), 'int b;native/src/a.cc\0int a;')
  expect(key()).not.toBe(first)
})

test('a stamp is fresh while its key is the same and its outputs are there', () => {
  const stamps = openStamps(join(root, 'build/stamp.json'))
  const output = join(root, 'out.node')
  expect(stamps.isFresh('native', 'k')).toBe(false)
  writeFileSync(output, '')
  stamps.write('native', 'k', [output])
  stamps.write('wasm', 'w', [])
  expect(stamps.isFresh('native', 'k')).toBe(true)
  expect(stamps.isFresh('wasm', 'w')).toBe(true)
  expect(stamps.isFresh('native', 'other')).toBe(false)
  rmSync(output)
  expect(stamps.isFresh('native', 'k')).toBe(false)
})

test('a stamp file that was cut off is as good as none', () => {
  writeFileSync(join(root, 'stamp.json'), '{"native": {"ke')
  expect(openStamps(join(root, 'stamp.json')).isFresh('native', 'k')).toBe(false)
})

/** A checkout whose lock file wants `locked` and whose node_modules has `installed`. */
function writeModules(locked, installed) {
  writeFileSync(join(root, 'package-lock.json'), JSON.stringify({ packages: { '': {}, ...locked } }))
  for (const path of Object.keys(installed)) mkdirSync(join(root, path), { recursive: true })
  mkdirSync(join(root, 'node_modules'), { recursive: true })
  writeFileSync(join(root, 'node_modules/.package-lock.json'), JSON.stringify({ packages: installed }))
}

const a1 = { 'node_modules/a': { version: '1.0.0' } }
const nested = { 'node_modules/a/node_modules/@s/b': { version: '2.0.0' } }
const foreign = { 'node_modules/c-darwin': { version: '1.0.0', optional: true } }

test('dependencies are installed when missing, of another version, or half there', () => {
  expect(whyInstall(root)).toMatch(/missing or incomplete/)
  writeModules({ ...a1, ...nested }, a1)
  expect(whyInstall(root)).toBe('@s/b is missing')
  writeModules({ 'node_modules/a': { version: '1.0.1' } }, a1)
  expect(whyInstall(root)).toBe('a is 1.0.0, and 1.0.1 is wanted')
  rmSync(join(root, 'node_modules/a'), { recursive: true })
  writeModules(a1, {})
  writeFileSync(join(root, 'node_modules/.package-lock.json'), JSON.stringify({ packages: a1 }))
  expect(whyInstall(root)).toBe('a is missing')
})

test('dependencies that are there stay, and binaries of other platforms may be missing', () => {
  writeModules({ ...a1, ...nested, ...foreign }, { ...a1, ...nested })
  expect(whyInstall(root)).toBeUndefined()
})

test('Node 20.19 is the floor', () => {
  expect(['20.19.0', '20.20.2', '22.1.0', '26.0.0'].every(isSupportedNode)).toBe(true)
  expect(['18.20.0', '20.18.9'].some(isSupportedNode)).toBe(false)
})

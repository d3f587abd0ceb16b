import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { howToBuild } from './files.ts'

test('how the addon is compiled: by the script of a checkout, in an installed package without it', () => {
  const installed = mkdtempSync(join(tmpdir(), 'kvasir installed '))
  expect(howToBuild()).toBe('npm run native')
  expect(howToBuild(installed)).toBe(`npx node-gyp configure build -C "${installed}"`)
  rmSync(installed, { recursive: true })
})

import { createHash } from 'node:crypto'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import ts from 'typescript'
import { afterAll, afterEach, describe, expect, test, vi } from 'vitest'
import { builtFile } from './files.ts'
import { interfaceVersion } from './interface.ts'
import { probeWasm } from './wasm.ts'
import { whyOtherCode } from './wasm-code.ts'

const folder = mkdtempSync(join(tmpdir(), 'kvasir-addon-'))
afterAll(() => rmSync(folder, { recursive: true }))
afterEach(() => {
  vi.unstubAllEnvs()
  vi.doUnmock('./wasm.ts')
  vi.resetModules()
})

let count = 0

/** The loader, with a stand-in for the addon. */
async function loaderOf(addon: string): Promise<typeof import('./native.ts')> {
  const path = join(folder, `${count++}.cjs`)
  writeFileSync(path, addon)
  vi.stubEnv('KVASIR_ADDON', path)
  vi.resetModules()
  return import('./native.ts')
}

const current = `interfaceVersion: ${interfaceVersion}, instructionSets: () => ['avx2']`
const other = 'compiled from other sources than these'

describe('an addon', () => {
  test.each([
    ['without a version', "instructionSets: () => ['avx2']", 'got none; npm run native'],
    ['of an older version', `interfaceVersion: ${interfaceVersion - 1}`, `got ${interfaceVersion - 1}; npm run native`],
    ['of a newer version', `interfaceVersion: ${interfaceVersion + 1}`, `got ${interfaceVersion + 1}; npm run native`],
  ])('%s is refused, with what to do', async (_, exports, got) => {
    const { probeNative, openNative, instructionSets } = await loaderOf(`module.exports = { ${exports} }`)
    expect(probeNative()).toContain(`${other} (expected version ${interfaceVersion} of their interface, ${got})`)
    expect(() => openNative(1)).toThrow(other)
    expect(() => instructionSets()).toThrow(other)
  })

  test('of this version is taken', async () => {
    const { probeNative, instructionSets } = await loaderOf(`module.exports = { ${current} }`)
    expect(probeNative()).toBe(true)
    expect(instructionSets()).toEqual(['avx2'])
  })

  test('that is not one says so', async () => {
    const { probeNative } = await loaderOf('throw new Error("wrong ELF class")')
    expect(probeNative()).toBe('the native kernels do not load: wrong ELF class')
  })
})

describe('what serves instead', () => {
  test('is WebAssembly, and the reason can be asked for', async (context) => {
    if (probeWasm() !== true) context.skip('needs the wasm backend')
    await loaderOf('module.exports = {}')
    vi.stubEnv('KVASIR_BACKEND', '')
    const { openKernels, whyNotNative } = await import('./index.ts')
    expect(openKernels({ threads: 1 }).name).toBe('wasm')
    expect(whyNotNative()).toContain(other)
    expect(() => openKernels({ backend: 'native' })).toThrow(other)
  })

  test('is nothing where WebAssembly is out of date too: the slow reference is for those who ask', async () => {
    await loaderOf('module.exports = {}')
    vi.stubEnv('KVASIR_BACKEND', '')
    vi.doMock('./wasm.ts', () => ({ probeWasm: () => 'the WebAssembly kernels are not built (npm run wasm)' }))
    const { openKernels } = await import('./index.ts')
    expect(() => openKernels()).toThrow(/native: .*npm run native.*; wasm: .*npm run wasm.*"reference"/)
    expect(openKernels({ backend: 'reference' }).name).toBe('reference')
    vi.stubEnv('KVASIR_BACKEND', 'reference')
    expect(openKernels().name).toBe('reference')
  })
})

test.skipIf(probeWasm() !== true)('WebAssembly of another version is refused before it is compiled', () => {
  for (const name of ['kvasir.wasm', 'kvasir-relaxed.wasm']) {
    const bytes = new Uint8Array(readFileSync(builtFile('wasm', name)))
    const why = (patched: Uint8Array<ArrayBuffer>) => whyOtherCode({ bytes: patched, label: 'SIMD' }, 'npm run wasm')
    expect(why(bytes)).toBeUndefined()
    const at = Buffer.from(bytes).indexOf(`interface_${interfaceVersion}\0`)
    const [renamed, nameless] = [bytes.slice(), bytes.slice()]
    renamed[at + 'interface_'.length] = '0'.charCodeAt(0)
    nameless[at] = 'x'.charCodeAt(0)
    expect(why(renamed)).toContain(
      `${other} (expected version ${interfaceVersion} of their interface, got 0; npm run wasm)`,
    )
    expect(why(nameless)).toContain('got none')
  }
})

test('both sides have one number', () => {
  const header = readFileSync(builtFile('..', 'native/bindings/interface.h'), 'utf8')
  expect(/#define KVASIR_INTERFACE (\d+)/.exec(header)?.[1]).toBe(`${interfaceVersion}`)
})

/** Whoever changes the lists raises both numbers, and writes here what this says then. Comments don't count. */
test('what is passed does not change without the number', () => {
  const source = readFileSync(new URL('./calls.ts', import.meta.url), 'utf8')
  const { outputText } = ts.transpileModule(source, {
    compilerOptions: { removeComments: true, target: ts.ScriptTarget.ESNext },
  })
  const fingerprint = createHash('sha256').update(outputText.replace(/\s+/g, '')).digest('hex').slice(0, 12)
  expect(`interface ${interfaceVersion}, calls ${fingerprint}`).toBe('interface 3, calls b2cd26314b96')
})

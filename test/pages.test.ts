/** `kvasir/attention`, `kvasir/positions` and `kvasir/kernels` in a page, where there is nothing of Node.js. */
import { readFileSync } from 'node:fs'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterAll, beforeAll, expect, test, vi } from 'vitest'
import { builtFile } from '../src/kernels/files.ts'
import { probeWasm } from '../src/kernels/wasm.ts'

const root = fileURLToPath(new URL('..', import.meta.url))
const entries = ['src/attention/index.ts', 'src/positions/index.ts', 'src/kernels/index.ts']

/** What a file imports when it runs; types are gone by then. */
function importsOf(path: string): string[] {
  const text = readFileSync(path, 'utf8')
  const found = text.matchAll(/^(?:import|export)\s+(?!type\b)(?:[^'";]*?\bfrom\s+)?'([^']+)'/gm)
  return [...found].map(([, name]) => name as string)
}

test('what they load imports nothing of Node.js, and only the package that tensors come from', () => {
  const files = new Set(entries.map((entry) => join(root, entry)))
  for (const file of files) {
    for (const name of importsOf(file)) {
      if (name.startsWith('.')) files.add(join(dirname(file), name))
      else expect(name, file).toBe('onnxruntime-common')
    }
  }
  expect(files.size).toBeGreaterThan(50)
})

const built = builtFile('wasm')
const server = createServer(({ url = '' }, response) => {
  const name = /^\/served\/(kvasir[a-z-]*\.wasm)$/.exec(url)?.[1]
  response.writeHead(name ? 200 : 404).end(name && readFileSync(join(built, name)))
})
let folder = ''
beforeAll(async () => {
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  folder = `http://127.0.0.1:${(server.address() as AddressInfo).port}/served/`
})
afterAll(() => {
  vi.restoreAllMocks()
  server.close()
})

test.skipIf(probeWasm() !== true)('kernels are fetched once, then attention runs', async () => {
  vi.stubEnv('KVASIR_BACKEND', '')
  vi.resetModules()
  const { fetchKernels, openKernels, whyNotNative } = await import('../src/kernels/index.ts')
  const { flashAttention, Tensor } = await import('../src/attention/index.ts')
  vi.spyOn(process, 'getBuiltinModule').mockReturnValue(undefined as never)
  expect(() => openKernels()).toThrow(/native: they run in Node\.js only; wasm: .*fetchKernels/)
  await expect(fetchKernels(new URL('elsewhere/', folder))).rejects.toThrow(
    /expected .*elsewhere.* to be there, got 404/,
  )
  await fetchKernels(folder)
  expect(openKernels().name).toBe('wasm')
  expect(whyNotNative()).toMatch(/Node\.js only/)
  // One key: its value is the result.
  const vector = (...data: number[]) => new Tensor('float32', Float32Array.from(data), [1, 1, 1, 4])
  const output = await flashAttention(vector(1, 2, 3, 4), vector(4, 3, 2, 1), vector(5, 6, 7, 8))
  expect([...(output.data as Float32Array)]).toEqual([5, 6, 7, 8])
})

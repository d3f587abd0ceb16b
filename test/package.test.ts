import { execFile } from 'node:child_process'
import { existsSync, readFileSync, rmSync } from 'node:fs'
import { join, posix } from 'node:path'
import { pathToFileURL } from 'node:url'
import { promisify } from 'node:util'
import ts from 'typescript'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { commands } from '../src/cli/commands/index.ts'
import { extractLinks, listDocuments, root } from './documents.ts'

const run = promisify(execFile)
/** Inside the checkout, so that the compiled package finds its dependencies and its package.json. */
const built = join(root, 'build/package-test')
const manifest = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'))
const toBuilt = (path: string): string => join(built, path.replace(/^\.\/dist\//, ''))

beforeAll(async () => {
  const tsc = join(root, 'node_modules/typescript/bin/tsc')
  // Types are checked by `npm run types`; here they are written, which takes a fraction of the time.
  await run(process.execPath, [tsc, '-p', 'tsconfig.build.json', '--outDir', built, '--noCheck'], { cwd: root })
})
afterAll(() => rmSync(built, { recursive: true, force: true }))

const entries: [name: string, target: { types: string; default: string }][] = Object.entries(manifest.exports)

test.each(entries)('the package exports "%s", compiled and typed', async (_, target) => {
  expect(existsSync(toBuilt(target.types))).toBe(true)
  const module = await import(pathToFileURL(toBuilt(target.default)).href)
  expect(Object.keys(module).length).toBeGreaterThan(0)
})

test('the compiled program runs, and --help lists all commands', async () => {
  const main = toBuilt(manifest.bin.kvasir)
  expect(readFileSync(main, 'utf8')).toMatch(/^#!\/usr\/bin\/env node\n/)
  const { stdout } = await run(process.execPath, [main, '--help'])
  for (const name of Object.keys(commands)) expect(stdout).toMatch(new RegExp(`^ {2}${name}\\b`, 'm'))
  expect((await run(process.execPath, [main, '--version'])).stdout).toBe(`${manifest.version}\n`)
})

test('the compiled program finds the bundled model and the kernels', async () => {
  const { stdout, stderr } = await run(process.execPath, [toBuilt(manifest.bin.kvasir), 'inspect', '--json'])
  const { model, backend } = JSON.parse(stdout)
  expect(model).toBe('kvasir-tiny')
  expect(backend).toMatch(/^(native|wasm)/)
  if (backend.startsWith('native')) expect(stderr).toBe('')
  else expect(stderr).toContain('without native kernels')
})

test('the compiled package leaves tests out', () => {
  expect(existsSync(join(built, 'src/cli/program.js'))).toBe(true)
  expect(existsSync(join(built, 'src/cli/program.test.js'))).toBe(false)
  expect(existsSync(join(built, 'test'))).toBe(false)
})

test('the declarations stand by themselves: a strict project checks them without the types of Node', () => {
  const options: ts.CompilerOptions = {
    ...{ strict: true, skipLibCheck: false, noEmit: true, types: [] },
    ...{ module: ts.ModuleKind.ESNext, moduleResolution: ts.ModuleResolutionKind.Bundler },
    ...{ target: ts.ScriptTarget.ES2022, lib: ['lib.es2023.d.ts', 'lib.dom.d.ts'] },
  }
  const files = entries.map(([, { types }]) => toBuilt(types))
  const problems = ts.getPreEmitDiagnostics(ts.createProgram(files, options))
  expect(problems.map(({ file, messageText }) => [file?.fileName, messageText])).toEqual([])
}, 60_000)

test('documents of the package lead to files of the package', async () => {
  const { stdout } = await run('npm', ['pack', '--dry-run', '--json', '--ignore-scripts'], { cwd: root })
  const files: string[] = JSON.parse(stdout)[0].files.map(({ path }: { path: string }) => path)
  const folders = new Set(files.flatMap((file) => [...file.matchAll(/\//g)].map(({ index }) => file.slice(0, index))))
  const documents = listDocuments().filter((name) => files.includes(name))
  expect(documents).toContain('README.md')
  const dead = documents.flatMap((name) =>
    extractLinks(readFileSync(join(root, name), 'utf8'))
      .map((link) => posix.join(posix.dirname(name), link).replace(/\/$/, ''))
      .filter((path) => !files.includes(path) && !folders.has(path))
      .map((path) => `${name}: ${path}`),
  )
  expect(dead).toEqual([])
})

test('importing the library is free of side effects: nothing is printed and the process ends', async () => {
  const script = `await import(${JSON.stringify(pathToFileURL(toBuilt('./dist/src/index.js')).href)})`
  const result = await run(process.execPath, ['--input-type=module', '-e', script], { timeout: 20_000 })
  expect(result).toEqual({ stdout: '', stderr: '' })
})

test('the compiled library runs a model in a thread, and an idle one does not keep the process', async () => {
  const script = `
    const { loadModel } = await import(${JSON.stringify(pathToFileURL(toBuilt('./dist/src/index.js')).href)})
    const model = await loadModel('models/kvasir-tiny', { threads: 1 })
    const tokens = []
    for await (const event of model.stream('Mara put the key', { maxNewTokens: 3, ignoreEos: true })) tokens.push(event.type)
    console.log(tokens.join())`
  const args = ['--input-type=module', '-e', script]
  const { stdout } = await run(process.execPath, args, { cwd: root, timeout: 60_000 })
  expect(stdout).toBe('token,token,token,done\n')
})

test('the lock file names the packages of every platform: npm ci refuses it otherwise', () => {
  const { packages } = JSON.parse(readFileSync(join(root, 'package-lock.json'), 'utf8'))
  const locked: [path: string, entry: { optionalDependencies?: Record<string, string> }][] = Object.entries(packages)
  const missing = locked.flatMap(([path, { optionalDependencies = {} }]) =>
    Object.keys(optionalDependencies).filter(
      (name) => !packages[`node_modules/${name}`] && !packages[`${path}/node_modules/${name}`],
    ),
  )
  expect(missing).toEqual([])
})

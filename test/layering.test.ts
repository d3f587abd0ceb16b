import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { expect, test } from 'vitest'
import { findViolations } from './layering.ts'

const root = fileURLToPath(new URL('..', import.meta.url))

/** The sources of the checkout by path from its root. */
function readSources(): Map<string, string> {
  const paths = ['src', 'eval', 'bench', 'training'].flatMap((folder) =>
    readdirSync(join(root, folder), { recursive: true, encoding: 'utf8' }).map((name) => `${folder}/${name}`),
  )
  const sources = paths.map((path) => path.replaceAll('\\', '/')).filter((path) => /\.tsx?$/.test(path))
  return new Map(sources.map((path) => [path, readFileSync(join(root, path), 'utf8')]))
}

const check = (files: Record<string, string>): string[] =>
  findViolations(new Map(Object.entries(files))).map(({ file, line, rule }) => `${file}:${line} ${rule}`)

test('imports of this checkout point down', () => {
  const sources = readSources()
  expect(sources.size).toBeGreaterThan(30)
  expect(findViolations(sources)).toEqual([])
})

test('an import that points up is named with file, line and rule', () => {
  const text = "import { a } from './a.ts'\nimport { loadModel } from '../runtime/index.ts'\n"
  expect(check({ 'src/cache/b.ts': text })).toEqual([
    'src/cache/b.ts:2 imports point down, and src/runtime is above src/cache',
  ])
})

test('folders on one level do not know each other', () => {
  const file = 'src/attention/a.ts'
  expect(check({ [file]: "import '../positions/rope.ts'" })).toEqual([
    `${file}:1 imports point down, and src/positions is beside src/attention`,
  ])
})

test('types, re-exports and dynamic imports count as well', () => {
  const upward = [
    "import type { A } from '../runtime/contract.ts'",
    "export * from '../runtime/contract.ts'",
    "const a = await import('../runtime/contract.ts')",
    "type A = import('../runtime/contract.ts').A",
  ]
  for (const text of upward) expect(check({ 'src/tensor/a.ts': text }), text).toHaveLength(1)
})

test('what only looks like an import does not count', () => {
  expect(
    check({ 'src/tensor/a.ts': "// import '../runtime/index.ts'\nconst text = 'from ../runtime/index.ts'" }),
  ).toEqual([])
})

test('downward imports, tests and the tools of training are free', () => {
  expect(
    check({
      'src/cli/a.ts': "import '../../eval/recall.ts'\nimport '../../training/stories.ts'\nimport '../tensor/error.ts'",
      'src/tensor/a.test.ts': "import '../runtime/index.ts'",
      'training/samples.ts': "import './tokenizer.ts'",
      'training/stories.ts': "import './facts.ts'",
      'eval/recall.ts': "import { Option } from '../src/index.ts'",
    }),
  ).toEqual([])
})

test('the library reaches neither the command line, nor evaluations, nor training', () => {
  expect(
    check({
      'src/runtime/a.ts': "import '../cli/main.ts'\nimport '../../eval/recall.ts'\nimport '../../training/facts.ts'",
    }),
  ).toEqual([
    'src/runtime/a.ts:1 imports point down, and src/cli is above src/runtime',
    'src/runtime/a.ts:2 imports point down, and eval is above src/runtime',
    'src/runtime/a.ts:3 training/facts.ts is not for import from here',
  ])
})

test('packages stay at home', () => {
  expect(
    check({ 'src/cache/a.ts': "import ort from 'onnxruntime-node'\nimport { Tensor } from 'onnxruntime-common'" }),
  ).toEqual(['src/cache/a.ts:1 onnxruntime-node is for src/runtime and bench only'])
})

test('a folder without a level is found', () => {
  expect(check({ 'src/other/a.ts': '' })).toEqual(['src/other/a.ts:1 no level in test/layering.ts names this folder'])
})

test('the library does not print, the command line does', () => {
  const text = 'export const a = 1\n// console.log\nconsole.log(a)\n'
  expect(check({ 'src/tensor/a.ts': text, 'src/cli/a.ts': text })).toEqual([
    'src/tensor/a.ts:3 the library does not print',
  ])
})

import { execFile } from 'node:child_process'
import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { promisify } from 'node:util'
import ts from 'typescript'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { commands } from '../src/cli/commands/index.ts'
import { runCli } from '../src/cli/program.ts'
import { extractLinks, extractSnippets, listDocuments, readSnippets, root } from './documents.ts'

const run = promisify(execFile)
const folder = join(root, 'build/snippets')
const snippets = readSnippets()

beforeAll(() => mkdirSync(folder, { recursive: true }))
afterAll(() => rmSync(folder, { recursive: true, force: true }))

const { exports: exported }: { exports: Record<string, { types: string }> } = JSON.parse(
  readFileSync(join(root, 'package.json'), 'utf8'),
)

/** Types of snippets as a user of the package would see them, with the package's names leading to the sources. */
function checkTypes(codes: readonly string[]): string[] {
  const { config } = ts.readConfigFile(join(root, 'tsconfig.json'), ts.sys.readFile)
  const paths = Object.fromEntries(
    Object.entries(exported).map(([path, { types }]) => [
      path.replace(/^\./, 'kvasir'),
      [types.replace(/^\.\/dist/, '.').replace(/\.d\.ts$/, '.ts')],
    ]),
  )
  const { options } = ts.parseJsonConfigFileContent(
    { ...config, compilerOptions: { ...config.compilerOptions, paths, noUnusedLocals: false } },
    ts.sys,
    root,
  )
  const files = codes.map((code, index) => {
    const file = join(folder, `types-${index}.ts`)
    writeFileSync(file, `${code}\nexport {}\n`)
    return file
  })
  const program = ts.createProgram(files, options)
  return files.flatMap((file, index) =>
    ts
      .getPreEmitDiagnostics(program, program.getSourceFile(file))
      .map(({ messageText }) => `${index}: ${ts.flattenDiagnosticMessageText(messageText, ' ')}`),
  )
}

test('code in the documents has the types of the library', () => {
  expect(snippets.length).toBeGreaterThan(1)
  const problems = checkTypes(snippets.map(({ code }) => code))
  expect(problems.map((problem) => problem.replace(/^\d+/, (index) => snippets[Number(index)]?.where ?? ''))).toEqual(
    [],
  )
})

test('code that does not fit the library is found', () => {
  const codes = [
    "import { loadModel } from 'kvasir'\nloadModel(1)",
    "import { nothing } from 'kvasir'",
    "import { KvasirError } from 'kvasir/tensor'",
  ]
  const problems = checkTypes(codes)
  expect(problems.some((problem) => problem.startsWith('0: '))).toBe(true)
  expect(problems.some((problem) => problem.includes("no exported member 'nothing'"))).toBe(true)
  expect(problems.some((problem) => problem.startsWith("2: Cannot find module 'kvasir/tensor'"))).toBe(true)
})

test('code in the README runs', async () => {
  const codes = snippets.filter(({ where }) => where.startsWith('README.md'))
  expect(codes.length).toBeGreaterThan(0)
  for (const [index, { code, where }] of codes.entries()) {
    const file = join(folder, `run-${index}.ts`)
    const local = code.replace(/from 'kvasir(\/\w+)?'/g, (_, path = '') => `from '../../src${path}/index.ts'`)
    writeFileSync(file, local)
    const { stdout } = await run(process.execPath, ['--import', 'tsx', file], { cwd: root })
    expect(stdout, where).not.toBe('')
  }
})

test('docs/cli.md describes every command', () => {
  const text = readFileSync(join(root, 'docs/cli.md'), 'utf8')
  for (const name of Object.keys(commands)) expect(text).toContain(`## kvasir ${name}`)
})

/** ["plan"]; of a command with others below it ["bench", "attention"] and so on. */
function commandLines(name: string): string[][] {
  const context = { ...unusedContext, stdout: { write: () => true }, stderr: { write: () => true } }
  const below = commands[name as keyof typeof commands](context).commands
  return below.length === 0 ? [[name]] : below.map((child) => [name, child.name()])
}

/** Of command lines that only ask for help. */
const unusedContext = {
  ...{ stdin: (async function* () {})(), env: {}, signal: new AbortController().signal },
  loadModel: () => Promise.reject(new Error('no model is needed for help')),
}

test('docs/cli.md names every option', async () => {
  const text = readFileSync(join(root, 'docs/cli.md'), 'utf8')
  for (const words of Object.keys(commands).flatMap(commandLines)) {
    const help: string[] = []
    const output = { columns: 100, write: (part: string) => help.push(part) > 0 }
    const code = await runCli([...words, '--help'], { ...unusedContext, stdout: output, stderr: output })
    expect(code).toBe(0)
    const options = [...help.join('').matchAll(/^ {2}(?:-\w, )?(--[a-z-]+)/gm)].map((match) => match[1] ?? '')
    expect(options).toContain('--json')
    expect(
      options.filter((option) => !text.includes(option)),
      words.join(' '),
    ).toEqual([])
  }
})

test('links in the documents lead somewhere', () => {
  const broken = listDocuments().flatMap((file) =>
    extractLinks(readFileSync(join(root, file), 'utf8'))
      .filter((link) => !existsSync(join(root, dirname(file), link)))
      .map((link) => `${file}: ${link}`),
  )
  expect(broken).toEqual([])
})

test('files and folders that the documents name are there', () => {
  const named = /`((?:src|native|bench|eval|test|tools|training|models)\/[\w./-]+)`/g
  const places = listDocuments().flatMap((file) => {
    const text = readFileSync(join(root, file), 'utf8')
    return [...text.matchAll(named)].map(([, path = '']) => ({ file, path }))
  })
  expect(places.length).toBeGreaterThan(50)
  // Those that CONTRIBUTING.md asks somebody to write.
  const missing = places.filter(({ path }) => !/\/my[-_]/.test(path) && !existsSync(join(root, path)))
  expect(missing).toEqual([])
})

test('the README leads to every page of docs/', () => {
  const pages = listDocuments().filter((name) => /^docs\/[^/]+\.md$/.test(name))
  const links = extractLinks(readFileSync(join(root, 'README.md'), 'utf8'))
  expect(pages.length).toBeGreaterThan(10)
  expect(pages.filter((page) => !links.includes(page))).toEqual([])
})

test('snippets and links are found where they stand', () => {
  const text =
    'A [link](docs/a.md#part) and [another](https://example.org).\n\n```ts\nconst a = 1\n```\n\n```text\nno\n```\n'
  expect(extractSnippets('x.md', text)).toEqual([{ where: 'x.md:4', code: 'const a = 1\n' }])
  expect(extractLinks(text)).toEqual(['docs/a.md'])
})

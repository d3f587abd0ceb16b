/**
 * The rules of who may import whom. Imports point down: a file may import files of its own folder and of folders below
 * it. Tests and the tools of training are free.
 */
import { dirname, normalize } from 'node:path/posix'
import ts from 'typescript'

export interface Violation {
  readonly file: string
  readonly line: number
  readonly rule: string
}

/** From the bottom up; folders on one line don't know each other. */
const levels: readonly (readonly string[])[] = [
  ['src/tensor'],
  ['src/kernels'],
  ['src/positions', 'src/attention'],
  ['src/cache'],
  ['src/policies'],
  ['src/onnx'],
  ['src/runtime'],
  ['src/index.ts'],
  ['training/stories.ts'],
  ['eval'],
  ['bench'],
  ['src/cli'],
]

/** Packages that only one area may know. */
const homes: Readonly<Record<string, readonly string[]>> = {
  'onnxruntime-node': ['src/runtime', 'bench'],
  'onnxruntime-web': ['bench'],
  '@huggingface/hub': ['src/runtime'],
  '@huggingface/jinja': ['src/runtime'],
  '@huggingface/tokenizers': ['src/runtime'],
  '@mlc-ai/web-xgrammar': ['src/runtime'],
  lmdb: ['src/cache'],
  iovalkey: ['src/cache'],
  commander: ['src/cli'],
  'cli-progress': ['src/cli'],
  'cli-table3': ['src/cli'],
  picocolors: ['src/cli'],
  echarts: ['eval', 'bench'],
}

/** Folders whose files must not write to the terminal of whoever uses the library. */
const silent = /^src\/(?!cli\/)/

/**
 * Checks files, given as text by path from the root of the package.
 * Only imports with a literal name are seen, dynamic ones included.
 */
export function findViolations(files: ReadonlyMap<string, string>): Violation[] {
  return [...files].filter(([file]) => isChecked(file)).flatMap(([file, text]) => checkFile(file, text))
}

function isChecked(file: string): boolean {
  if (/\.test\.\w+$/.test(file)) return false
  return file === 'training/stories.ts' || /^(src|eval|bench)\//.test(file)
}

function checkFile(file: string, text: string): Violation[] {
  const imports = ts.preProcessFile(text, true, true).importedFiles
  const broken = imports.flatMap(({ fileName, pos }) => {
    const rule = fileName.startsWith('.') ? checkImport(file, fileName) : checkPackage(file, fileName)
    return rule === undefined ? [] : [{ file, line: lineOf(text, pos), rule }]
  })
  if (levelOf(file) < 0) broken.push({ file, line: 1, rule: 'no level in test/layering.ts names this folder' })
  if (silent.test(file)) broken.push(...findPrinting(file, text))
  return broken
}

function checkImport(file: string, name: string): string | undefined {
  const target = normalize(`${dirname(file)}/${name}`)
  const from = levelOf(file)
  const to = levelOf(target)
  const [own, other] = [areaOf(file), areaOf(target)]
  if (own === other && own !== undefined) return undefined
  // The story's own parts lie beside it; nothing else in training/ is for others.
  if (own === 'training/stories.ts' && target.startsWith('training/')) return undefined
  if (other === undefined) return `${target} is not for import from here`
  if (to < from) return undefined
  return `imports point down, and ${other} is ${to === from ? 'beside' : 'above'} ${own}`
}

function checkPackage(file: string, name: string): string | undefined {
  const home = Object.entries(homes).find(([packageName]) => name === packageName || name.startsWith(`${packageName}/`))
  if (!home || home[1].some((folder) => file.startsWith(`${folder}/`))) return undefined
  return `${home[0]} is for ${home[1].join(' and ')} only`
}

function findPrinting(file: string, text: string): Violation[] {
  return text.split('\n').flatMap((line, index) => {
    const code = line.replace(/^\s*(\*|\/\/).*/, '')
    if (!/\bconsole\.|\bprocess\.(stdout|stderr)\b/.test(code)) return []
    return [{ file, line: index + 1, rule: 'the library does not print' }]
  })
}

function levelOf(path: string): number {
  const area = areaOf(path)
  return levels.findIndex((level) => level.some((name) => name === area))
}

function areaOf(path: string): string | undefined {
  return levels.flat().find((name) => path === name || path.startsWith(`${name}/`))
}

function lineOf(text: string, position: number): number {
  return text.slice(0, position).split('\n').length
}

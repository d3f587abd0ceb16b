/** What the package exports is documented where it is used: the text that an editor shows. */
import { readFileSync } from 'node:fs'
import { join, relative } from 'node:path'
import ts from 'typescript'
import { expect, test } from 'vitest'
import { listDocuments, root } from './documents.ts'

const manifest = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'))
const entries = Object.values<{ default: string }>(manifest.exports).map((entry) =>
  join(root, entry.default.replace(/^\.\/dist\/(.*)\.js$/, '$1.ts')),
)

const { config } = ts.readConfigFile(join(root, 'tsconfig.json'), ts.sys.readFile)
const program = ts.createProgram(entries, ts.parseJsonConfigFileContent(config, ts.sys, root).options)
const checker = program.getTypeChecker()

/** What the files export, under the names that they give it. */
function exportsOf(files: readonly string[]) {
  return files.flatMap((file) => {
    const module = checker.getSymbolAtLocation(program.getSourceFile(file)!)!
    return checker.getExportsOfModule(module).map((exported) => {
      const symbol = exported.flags & ts.SymbolFlags.Alias ? checker.getAliasedSymbol(exported) : exported
      const isType =
        exported.declarations?.some(ts.isTypeOnlyExportDeclaration) || !(symbol.flags & ts.SymbolFlags.Value)
      return { place: `${relative(root, file)}: ${exported.name}`, name: exported.name, symbol, isType }
    })
  })
}

/** Functions and classes without a sentence on what they do. Of overloads the first counts: editors show one each. */
function isWithoutText(symbol: ts.Symbol): boolean {
  const declaration = symbol.valueDeclaration
  if (!declaration || declaration.getSourceFile().fileName.includes('node_modules')) return false
  if (ts.isClassDeclaration(declaration)) return symbol.getDocumentationComment(checker).length === 0
  const [first] = checker.getSignaturesOfType(checker.getTypeOfSymbol(symbol), ts.SignatureKind.Call)
  return first !== undefined && first.getDocumentationComment(checker).length === 0
}

test('functions and classes of the package say what they do', () => {
  const missing = exportsOf(entries).filter(({ symbol }) => isWithoutText(symbol))
  expect(missing.map(({ place }) => place)).toEqual([])
})

test('all values that the package exports are named in a document', () => {
  const documents = listDocuments()
    .map((name) => readFileSync(join(root, name), 'utf8'))
    .join('\n')
  const values = exportsOf(entries).filter(({ isType }) => !isType)
  expect(values.length).toBeGreaterThan(60)
  const missing = values.filter(({ name }) => !new RegExp(`\\b${name}\\b`).test(documents))
  expect(missing.map(({ place }) => place)).toEqual([])
})

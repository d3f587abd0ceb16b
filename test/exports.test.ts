/** What the package exports is documented where it is used: the text that an editor shows. */
import { readFileSync } from 'node:fs'
import { join, relative } from 'node:path'
import ts from 'typescript'
import { expect, test } from 'vitest'
import { root } from './documents.ts'

const manifest = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'))
const entries = Object.values<{ default: string }>(manifest.exports).map((entry) =>
  join(root, entry.default.replace(/^\.\/dist\/(.*)\.js$/, '$1.ts')),
)

/** Functions and classes without a sentence on what they do. Of overloads the first counts: editors show one each. */
function withoutText(files: readonly string[]): string[] {
  const { config } = ts.readConfigFile(join(root, 'tsconfig.json'), ts.sys.readFile)
  const { options } = ts.parseJsonConfigFileContent(config, ts.sys, root)
  const program = ts.createProgram(files, options)
  const checker = program.getTypeChecker()
  return files.flatMap((file) => {
    const module = checker.getSymbolAtLocation(program.getSourceFile(file)!)!
    const missing = checker.getExportsOfModule(module).filter((exported) => {
      const symbol = exported.flags & ts.SymbolFlags.Alias ? checker.getAliasedSymbol(exported) : exported
      const place = symbol.valueDeclaration
      if (!place || place.getSourceFile().fileName.includes('node_modules')) return false
      if (ts.isClassDeclaration(place)) return symbol.getDocumentationComment(checker).length === 0
      const [first] = checker.getSignaturesOfType(checker.getTypeOfSymbol(symbol), ts.SignatureKind.Call)
      return first !== undefined && first.getDocumentationComment(checker).length === 0
    })
    return missing.map(({ name }) => `${relative(root, file)}: ${name}`)
  })
}

test('functions and classes of the package say what they do', () => {
  expect(withoutText(entries)).toEqual([])
})

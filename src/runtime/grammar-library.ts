/**
 * XGrammar as WebAssembly. Its package says that it holds ES modules, but its one file is a script of the kind that
 * sets `module.exports`, which Node can't import: it is run as what it is (docs/decisions/0031-grammars.md).
 */
import { readFile } from 'node:fs/promises'
import { createRequire } from 'node:module'
import type * as XGrammar from '@mlc-ai/web-xgrammar'
import { KvasirError } from '../tensor/error.ts'

export type GrammarLibrary = Pick<typeof XGrammar, 'GrammarCompiler' | 'GrammarMatcher' | 'TokenizerInfo'>
export type { CompiledGrammar, GrammarCompiler, GrammarMatcher } from '@mlc-ai/web-xgrammar'

let library: Promise<GrammarLibrary> | undefined

/** Loaded when a grammar is first asked for, once a thread. */
export function loadGrammarLibrary(): Promise<GrammarLibrary> {
  library ??= load()
  return library
}

async function load(): Promise<GrammarLibrary> {
  const require = createRequire(import.meta.url)
  try {
    const file = require.resolve('@mlc-ai/web-xgrammar')
    const source = await readFile(file, 'utf8')
    const script = { exports: {} as GrammarLibrary }
    const run = new Function('exports', 'module', 'require', '__filename', 'process', 'console', source)
    // Without a process it takes the way that needs no files, since its WebAssembly is inside; and it prints nothing.
    run(script.exports, script, createRequire(file), file, undefined, { log: ignore, warn: ignore, error: ignore })
    return script.exports
  } catch (cause) {
    throw new KvasirError('unsupported', 'grammar', `can't load the grammar library: ${String(cause)}`, { cause })
  }
}

function ignore(): void {}

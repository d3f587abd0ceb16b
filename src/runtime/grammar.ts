/** Answers of a given form: which tokens may come next, by XGrammar. */
import { describe } from '../tensor/check.ts'
import { invalidArgument, KvasirError } from '../tensor/error.ts'
import type { ResponseFormat, TextTokenizer } from './contract.ts'
import {
  type CompiledGrammar,
  type GrammarCompiler,
  type GrammarMatcher,
  loadGrammarLibrary,
} from './grammar-library.ts'

/** Characters of white space in a row: enough to indent, and no way to write nothing for ever. */
const maxWhitespace = 16

/** Where one text stands in a grammar. */
export class GrammarState {
  readonly #matcher: GrammarMatcher
  #allowed: Int32Array = new Int32Array()

  constructor(matcher: GrammarMatcher) {
    this.#matcher = matcher
  }

  /** Finds out what may come next; before each `mask`. */
  async prepare(): Promise<void> {
    this.#allowed = await this.#matcher.getNextTokenBitmask()
  }

  /** Makes all other tokens impossible. */
  mask(logits: Float32Array): void {
    for (let token = 0; token < logits.length; token++) {
      const word = this.#allowed[token >> 5] ?? 0
      if (((word >>> (token & 31)) & 1) === 0) logits[token] = Number.NEGATIVE_INFINITY
    }
  }

  accept(token: number): void {
    if (this.#matcher.acceptToken(token)) return
    throw new KvasirError('internal', 'grammar', `expected a token that the grammar allows, got ${token}`)
  }

  dispose(): void {
    this.#matcher.dispose()
  }
}

/** A grammar for one vocabulary; `start` begins a text. */
export interface Grammar {
  start(): Promise<GrammarState>
}

type Vocabulary = Pick<TextTokenizer, 'vocabulary' | 'eosTokens'>

/** Knowing the vocabulary takes long, and a compiler remembers what it compiled: one for each tokenizer. */
const compilers = new WeakMap<object, Promise<GrammarCompiler>>()

/** @throws KvasirError `invalid-argument` for a schema or grammar that is none, `unsupported` without a vocabulary */
export async function compileGrammar(
  tokenizer: Vocabulary,
  vocabSize: number,
  format: ResponseFormat,
): Promise<Grammar> {
  const { GrammarMatcher } = await loadGrammarLibrary()
  const compiler = compilers.get(tokenizer) ?? createCompiler(tokenizer, vocabSize)
  compilers.set(tokenizer, compiler)
  compiler.catch(() => compilers.delete(tokenizer)) // the next one may have more memory
  const grammar = await compile(await compiler, format)
  return { start: async () => new GrammarState(await GrammarMatcher.createGrammarMatcher(grammar)) }
}

/** @throws KvasirError `invalid-argument` for something else */
export function checkFormat(format: unknown): asserts format is ResponseFormat {
  if (format === 'json') return
  const { jsonSchema, grammar } = (typeof format === 'object' && format !== null ? format : {}) as Record<
    string,
    unknown
  >
  if (typeof jsonSchema === 'object' && jsonSchema !== null && grammar === undefined) return
  if (typeof grammar === 'string' && jsonSchema === undefined) return
  const expected = `expected "json", { jsonSchema: {...} } or { grammar: "..." } for responseFormat`
  throw invalidArgument('grammar', `${expected}, got ${describe(format)}`)
}

async function createCompiler({ vocabulary, eosTokens }: Vocabulary, vocabSize: number): Promise<GrammarCompiler> {
  const { GrammarCompiler, TokenizerInfo } = await loadGrammarLibrary()
  if (!vocabulary)
    throw new KvasirError('unsupported', 'grammar', 'expected a tokenizer that shows its vocabulary, got none')
  const { tokens, kind, addsSpace } = vocabulary()
  const known = Array.from({ length: vocabSize }, (_, id) => tokens[id] ?? '')
  const info = await TokenizerInfo.createTokenizerInfo(known, kind, addsSpace, vocabSize, [...eosTokens])
  return await GrammarCompiler.createGrammarCompiler(info)
}

async function compile(compiler: GrammarCompiler, format: ResponseFormat): Promise<CompiledGrammar> {
  try {
    if (format === 'json') return await compiler.compileBuiltinJSONGrammar()
    if ('grammar' in format) return await compiler.compileGrammar(format.grammar)
    const rest = [true, undefined, undefined, true, maxWhitespace] as const // white space is free, properties are not
    return await compiler.compileJSONSchema(JSON.stringify(format.jsonSchema), ...rest)
  } catch (cause) {
    // Exceptions of C++ come as objects with a message or as bare numbers.
    const reason = cause instanceof Error ? cause.message : String(cause)
    throw invalidArgument('grammar', `expected a schema or grammar that can be compiled, got: ${reason}`)
  }
}

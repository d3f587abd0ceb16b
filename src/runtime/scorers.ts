/** The scorers of one model: a learned importance as chosen becomes a function, which caches take. */
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import type { CacheOptions, ImportanceSource, ScoreTokens } from '../cache/contract.ts'
import { checkImportanceSource } from '../policies/index.ts'
import { readScorer, type ScorerModel, scorerFileName } from './scorer-file.ts'

export class Scorers {
  readonly model: ScorerModel
  readonly #folder: string
  readonly #known = new Map<string, ScoreTokens>()

  /** @param folder of the model */
  constructor(folder: string, model: ScorerModel) {
    this.#folder = folder
    this.model = model
  }

  /** The file beside the model, where there is one. */
  get own(): string | undefined {
    const file = join(this.#folder, scorerFileName)
    return existsSync(file) ? file : undefined
  }

  /**
   * Options with a function for a learned importance; others as they are.
   * @throws KvasirError `invalid-argument` for what is no importance, `not-found` and `invalid-file` as `readScorer`
   */
  resolve(options: CacheOptions): CacheOptions {
    const { importance } = options
    return importance === undefined ? options : { ...options, importance: this.resolveImportance(importance) }
  }

  /** @throws as `resolve` */
  resolveImportance(importance: ImportanceSource): ImportanceSource {
    checkImportanceSource(importance)
    if (importance !== 'learned' && typeof importance !== 'object') return importance
    const file = importance === 'learned' ? join(this.#folder, scorerFileName) : importance.scorer
    const score = this.#known.get(file) ?? readScorer(file, this.model)
    this.#known.set(file, score)
    return score
  }
}

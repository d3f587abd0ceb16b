/**
 * Retention policies beside each other: what is left of a model when a part of its KV cache is removed.
 *
 * Every policy reads the same texts with a window of the tokens that may stay, in chunks as prompts are read, and does
 * not know what will be asked. The reference keeps everything.
 */
import type { CacheOptions, ImportanceSource, PolicyChoice } from '../src/cache/contract.ts'
import { importanceNames, policyNames, readPolicy } from '../src/policies/index.ts'
import type { CausalLM } from '../src/runtime/contract.ts'
import { checkChoice } from '../src/tensor/check.ts'
import { invalidArgument } from '../src/tensor/error.ts'
import { type Compared, compareCaches, tokensToRead } from './compare.ts'
import type { Passage } from './passages.ts'

export interface PolicyEvalOptions {
  readonly passages: readonly Passage[]
  /** Names of policies, `linear:value-norm` with what ranks tokens; default: all that the model has. */
  readonly policies?: readonly string[]
  /** Of KV removed, above 0 and below 1. */
  readonly shares?: readonly number[]
  /** Of all policies, as far as they fit the window. */
  readonly sinks?: number | undefined
  readonly recent?: number | undefined
  readonly signal?: AbortSignal
  readonly onProgress?: (tokens: number, total: number) => void
}

export interface PolicyRow extends Compared {
  readonly policy: string
  /** Scores never change (`static`), or are made anew from time to time (`rescoring`). */
  readonly kind: 'static' | 'rescoring'
  /** Of KV removed. */
  readonly share: number
  /** W */
  readonly window: number
  /** Answers right of those asked; null where nothing was asked. */
  readonly recall: number | null
}

export interface PolicyEvalResult {
  /** Tokens of the longest text that was read before answering. */
  readonly contextTokens: number
  readonly texts: number
  readonly shares: readonly number[]
  /** The cache that keeps everything. */
  readonly full: Pick<PolicyRow, 'recall' | 'questions' | 'correct' | 'positions' | 'kvBytes'>
  readonly rows: readonly PolicyRow[]
  readonly seconds: number
}

export const defaultShares: readonly number[] = [0.25, 0.5, 0.75, 0.875, 0.97]

/** A policy as named on the command line. */
interface NamedPolicy {
  readonly name: string
  readonly policy: PolicyChoice
  readonly importance: ImportanceSource | undefined
}

/** Everything in the table but `full`, and `linear` by each importance that the model has. */
export function allPolicies(model: Pick<CausalLM, 'shape' | 'describe'>): string[] {
  const others = policyNames.filter((name) => name !== 'full' && name !== 'linear')
  const isThere = { model: model.shape.hasImportance, learned: model.describe().scorer !== undefined }
  const sources = importanceNames.filter((name) => isThere[name as keyof typeof isThere] ?? true)
  return [...sources.map((source) => `linear:${source}`), ...others]
}

/** @throws KvasirError `invalid-argument`: an unknown policy or importance, a share outside 0..1 */
export async function evalPolicies(model: CausalLM, options: PolicyEvalOptions): Promise<PolicyEvalResult> {
  const { passages, policies = allPolicies(model), shares = defaultShares, signal, onProgress } = options
  const named = policies.map(readNamed)
  for (const share of shares) {
    if (!(share > 0 && share < 1)) throw invalidArgument('eval', `expected shares above 0, below 1, got ${share}`)
  }
  const started = performance.now()
  const contextTokens = Math.max(...passages.map(({ context }) => context.length))
  const windows = shares.map((share) => Math.max(1, Math.round((1 - share) * contextTokens)))
  const groups = named.map((policy) => windows.map((window) => cacheOptions(policy, window, options)))
  const total = tokensToRead({ passages, groups })
  const report = onProgress && ((tokens: number) => onProgress(tokens, total))
  const all = await compareCaches(model, {
    ...{ passages, reference: { policy: 'full', window: undefined }, groups },
    ...{ signal, onProgress: report },
  })
  const rows = all.groups.flatMap((group, p) => {
    const { name, policy } = named[p] as NamedPolicy
    return group.map((result, s): PolicyRow => {
      const place = { policy: name, kind: kindOf(policy), share: shares[s] as number, window: windows[s] as number }
      return { ...place, recall: recallOf(result), ...result }
    })
  })
  const { positions, questions, correct, kvBytes } = all.reference
  return {
    ...{ contextTokens, texts: passages.length, shares },
    full: { recall: recallOf(all.reference), positions, questions, correct, kvBytes },
    rows,
    seconds: (performance.now() - started) / 1000,
  }
}

/** `h2o`, `adakv(keydiff)`, `linear:value-norm`. */
function readNamed(name: string): NamedPolicy {
  const [policy, importance, ...more] = name.split(':')
  if (more.length > 0) throw invalidArgument('eval', `expected a policy, or policy:importance, got "${name}"`)
  if (readPolicy(policy).name === 'full') {
    throw invalidArgument(
      'eval',
      'expected policies that remove something, got "full": it is what they are compared with',
    )
  }
  if (importance !== undefined) checkChoice('eval', 'importance', importance, importanceNames)
  return { name, policy: policy as PolicyChoice, importance }
}

function cacheOptions(
  { policy, importance }: NamedPolicy,
  window: number,
  options: PolicyEvalOptions,
): Partial<CacheOptions> {
  const sinks = options.sinks === undefined ? undefined : Math.min(options.sinks, window - 1)
  const recent = options.recent === undefined ? undefined : Math.min(options.recent, window - 1 - (sinks ?? 0))
  const given = { policy, window, importance, sinks, recent }
  return Object.fromEntries(Object.entries(given).filter(([, value]) => value !== undefined))
}

function kindOf(policy: PolicyChoice): PolicyRow['kind'] {
  const { entry, sharesHeads } = readPolicy(policy)
  const retention = entry.retention?.({ policy }, { window: 1, sinks: 0, recent: 0 })
  return retention?.kind === 'static' && !sharesHeads ? 'static' : 'rescoring'
}

function recallOf({ questions, correct }: Compared): number | null {
  return questions === 0 ? null : correct / questions
}

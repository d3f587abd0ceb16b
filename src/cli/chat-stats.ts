/** What `/stats` of `kvasir chat` shows: the last turn, and what the cache is, keeps, has lost and got back. */

import type { CacheOptions, LayerExplanation } from '../cache/contract.ts'
import { usualType } from '../cache/storage/row-types.ts'
import type { TierStats } from '../cache/tiers/contract.ts'
import type { CacheReport, PrefixStats, TurnResult } from '../runtime/contract.ts'
import { formatBytes, formatCount, formatPlural, ratePerSecond } from './format.ts'
import { prefixText } from './prefix-report.ts'

export interface ChatStats {
  readonly last: TurnResult | undefined
  readonly options: CacheOptions
  readonly report: CacheReport
  readonly prefixes: PrefixStats | undefined
}

/** One line a fact, aligned; what there is nothing to say of is left out. */
export function statsText({ last, options, report, prefixes }: ChatStats): string {
  const { info, layers } = report
  const recall = layers.flatMap((layer) => layer.recall ?? [])
  const facts: [string, string][] = [
    ['last turn', last ? turnText(last) : ''],
    ['policy', policyText(options)],
    ['K and V', typeText(options)],
    [
      'KV cache',
      `${formatBytes(info.bytes)} for ${formatCount(info.keptTokens)} of ${formatCount(info.seenTokens)} tokens ` +
        `(all of them: ${formatBytes(info.fullBytes)})`,
    ],
    ['kept', keptText(layers)],
    ['evicted', info.evictedTokens > 0 ? `${formatPlural(info.evictedTokens, 'token')} at least by each head` : ''],
    ['recalled', recallText(recall)],
    ['tiers', recall[0] ? tiersText(recall[0].tiers) : ''],
    ['prefixes', prefixText(prefixes)],
  ]
  const shown = facts.filter(([, text]) => text !== '')
  const width = Math.max(...shown.map(([name]) => name.length))
  return shown.map(([name, text]) => `${name.padEnd(width)}  ${text}`).join('\n')
}

function turnText({ promptTokens, reusedTokens, generatedTokens, prefillMs, decodeMs }: TurnResult): string {
  const read = promptTokens - reusedTokens
  return (
    `read ${formatCount(read)} of ${formatPlural(promptTokens, 'token')} at ` +
    `${formatCount(ratePerSecond(read, prefillMs))} a second, wrote ${formatCount(generatedTokens)} at ` +
    `${formatCount(ratePerSecond(generatedTokens, decodeMs))} a second`
  )
}

function policyText({ policy, positions = 'original', ...rest }: CacheOptions): string {
  const numbers = (['window', 'leastWindow', 'sinks', 'recent', 'recall'] as const).flatMap((name) => {
    const value = rest[name]
    return value === undefined ? [] : [`${name === 'leastWindow' ? 'least window' : name} ${formatCount(value)}`]
  })
  const budget = rest.kvBudget === undefined ? [] : [`budget ${formatBytes(rest.kvBudget)}`]
  return [policy, ...numbers, ...budget, `${positions} positions`].join(', ')
}

function typeText({ kvDtype = usualType, kvDtypeK = kvDtype, kvDtypeV = kvDtype, residual }: CacheOptions): string {
  const types = kvDtypeK === kvDtypeV ? kvDtypeK : `${kvDtypeK} and ${kvDtypeV}`
  return residual === undefined ? types : `${types}, the last ${formatCount(residual)} in f16`
}

/** Neighbouring layers whose heads keep as many are told together. */
function keptText(layers: readonly LayerExplanation[]): string {
  const runs: { text: string; first: number; last: number }[] = []
  for (const [layer, { heads }] of layers.entries()) {
    const counts = heads.map(({ positions }) => positions.length)
    const [least, most] = [Math.min(...counts), Math.max(...counts)]
    const text = least === most ? formatCount(most) : `${formatCount(least)} to ${formatCount(most)}`
    const run = runs.at(-1)
    if (run?.text === text) run.last = layer
    else runs.push({ text, first: layer, last: layer })
  }
  if (runs.length === 1) return `${runs[0]!.text} by each head`
  return runs
    .map(({ text, first, last }) => `layer${first === last ? ` ${first}` : `s ${first} to ${last}`}: ${text}`)
    .join('; ')
}

function recallText(counts: readonly NonNullable<LayerExplanation['recall']>[]): string {
  if (counts.length === 0) return ''
  const sum = (of: 'recalled' | 'missed') => counts.reduce((total, one) => total + one[of], 0)
  const pages = formatPlural(Math.max(...counts.map((one) => one.pages)), 'page')
  return `${formatCount(sum('recalled'))} times a page of a head, ${formatCount(sum('missed'))} missing; ${pages} remembered`
}

function tiersText(tiers: readonly TierStats[]): string {
  return tiers
    .map(({ name, bytes, hits, misses }) => {
      const size = bytes === undefined ? '' : ` ${formatBytes(bytes)}`
      return `${name}${size}, ${formatCount(hits)} of ${formatCount(hits + misses)} found`
    })
    .join('; ')
}

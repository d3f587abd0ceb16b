/** What shared prefixes have done, for people. */
import type { TierStats } from '../cache/tiers/contract.ts'
import type { PrefixStats } from '../runtime/contract.ts'
import { formatBytes, formatCount, formatPlural } from './format.ts'

/** A line; '' without shared prefixes. */
export function prefixLine(stats: PrefixStats | undefined): string {
  const text = prefixText(stats)
  return text === '' ? '' : `prefixes: ${text}`
}

/** The same without its name. */
export function prefixText(stats: PrefixStats | undefined): string {
  if (!stats) return ''
  const { hits, misses, askedTokens, reusedTokens, refused, pages, tiers } = stats
  const places = [
    ...(pages.blocks > 0 ? [`pages ${formatBytes(pages.bytes)}${aside(pages)}`] : []),
    ...tiers.map(
      (tier) => `${tier.name}${tier.bytes === undefined ? '' : ` ${formatBytes(tier.bytes)}`}${aside(tier)}`,
    ),
  ]
  return (
    `${formatCount(reusedTokens)} of ${formatPlural(askedTokens, 'token')} reused in ` +
    `${formatCount(hits)} of ${formatPlural(hits + misses, 'prompt')}${refused > 0 ? `, ${refused} refused` : ''}; ` +
    places.join(', ')
  )
}

/** What went wrong, and what had to go. */
function aside({ evicted, corrupt = 0, failures = 0, lastError = '' }: Partial<TierStats>): string {
  const parts = [
    evicted ? `${formatCount(evicted)} evicted` : '',
    corrupt > 0 ? `${formatCount(corrupt)} damaged` : '',
    failures > 0 ? `${formatPlural(failures, 'failure')}: ${lastError}` : '',
  ].filter(Boolean)
  return parts.length > 0 ? ` (${parts.join(', ')})` : ''
}

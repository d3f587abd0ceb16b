/** What shared prefixes have done, for people. */
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
    ...(pages.blocks > 0 ? [`pages ${formatBytes(pages.bytes)}${lost(pages.evicted)}`] : []),
    ...tiers.map(({ name, bytes, evicted }) => {
      return `${name}${bytes === undefined ? '' : ` ${formatBytes(bytes)}`}${lost(evicted)}`
    }),
  ]
  return (
    `${formatCount(reusedTokens)} of ${formatPlural(askedTokens, 'token')} reused in ` +
    `${formatCount(hits)} of ${formatPlural(hits + misses, 'prompt')}${refused > 0 ? `, ${refused} refused` : ''}; ` +
    places.join(', ')
  )
}

function lost(evicted: number): string {
  return evicted > 0 ? ` (${formatCount(evicted)} evicted)` : ''
}

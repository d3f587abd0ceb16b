/** What `kvasir inspect --cache` shows of a file of caches. */
import type { Eviction } from '../cache/contract.ts'
import type { CacheFileReport, SavedCacheReport } from '../runtime/index.ts'
import { formatBytes, formatCount, formatPlural } from './format.ts'
import type { Terminal } from './terminal.ts'

type Range = readonly [first: number, last: number]

/** Cells of a picture, and what is written for a share of kept positions. */
const pictureCells = 40
const shades = ['·', '░', '▒', '▓', '█']
const shownRanges = 4
const shownEvictions = 5

/** Stretches of positions without gaps. */
export function rangesOf(positions: readonly number[]): Range[] {
  const ranges: [number, number][] = []
  for (const position of positions) {
    const last = ranges.at(-1)
    if (last && last[1] === position - 1) last[1] = position
    else ranges.push([position, position])
  }
  return ranges
}

/** Kept positions over the whole sequence: the darker a cell, the more of its positions are there. */
export function picture(positions: readonly number[], seenTokens: number): string {
  const cells = Math.min(pictureCells, seenTokens)
  const counts = new Array<number>(cells).fill(0)
  for (const position of positions) counts[Math.floor((position * cells) / seenTokens)]! += 1
  return counts
    .map((count, cell) => {
      const size = Math.ceil(((cell + 1) * seenTokens) / cells) - Math.ceil((cell * seenTokens) / cells)
      return shades[Math.ceil((count / size) * (shades.length - 1))]
    })
    .join('')
}

export function cacheFileJson(file: string, { bytes, model, caches }: CacheFileReport): object {
  return {
    file,
    bytes,
    model,
    caches: caches.map(({ options, info, layers, tokens }) => ({
      options,
      ...info,
      tokens: Array.from(tokens),
      layers: layers.map(({ heads, evicted, recall }) => ({
        heads: heads.map(({ positions }) => ({ kept: positions.length, ranges: rangesOf(positions) })),
        evicted,
        ...(recall && { recall: { pages: recall.pages } }),
      })),
    })),
  }
}

export function reportCacheFile(file: string, { bytes, model, caches }: CacheFileReport, terminal: Terminal): void {
  const { bold } = terminal.paint
  const what = formatPlural(caches.length, 'cache')
  terminal.print(`${bold(file)}: ${formatBytes(bytes)}, ${what} of ${model.architecture} ${model.fingerprint}`)
  for (const cache of caches) reportCache(cache, terminal)
}

function reportCache({ options, info, layers, tokens }: SavedCacheReport, terminal: Terminal): void {
  const { keptTokens, seenTokens, bytes, fullBytes } = info
  const said = Object.entries(options).map(([name, value]) => `${name} ${value}`)
  terminal.print()
  terminal.print(said.join(', '))
  terminal.print(
    `${formatCount(keptTokens)} of ${formatPlural(seenTokens, 'token')} in ${formatBytes(bytes)} ` +
      `(all of them: ${formatBytes(fullBytes)}); the last ids are ${Array.from(tokens.subarray(-8)).join(' ')}`,
  )
  const rows = layers.flatMap(({ heads }, layer) =>
    heads.map(({ positions }, head) => {
      return [`${layer}`, `${head}`, formatCount(positions.length), inWords(positions), picture(positions, seenTokens)]
    }),
  )
  terminal.table(['layer', 'head', 'kept', 'positions', `0 to ${formatCount(seenTokens)}`], rows)
  const newest = layers.flatMap(({ evicted }, layer) => evicted.map((eviction) => ({ layer, ...eviction })))
  for (const eviction of newest.sort((a, b) => b.seenTokens - a.seenTokens).slice(0, shownEvictions)) {
    terminal.print(evictionText(eviction))
  }
}

function inWords(positions: readonly number[]): string {
  const ranges = rangesOf(positions)
  const text = ranges.slice(0, shownRanges).map(([first, last]) => (first === last ? `${first}` : `${first}-${last}`))
  const left = ranges.length - shownRanges
  return text.join(' ') + (left > 0 ? ` and ${formatCount(left)} more` : '')
}

function evictionText({ layer, head, position, score, seenTokens }: Eviction & { readonly layer: number }): string {
  const why = score === null ? '' : `, score ${Number(score.toPrecision(4))}`
  return `left layer ${layer} head ${head} after ${formatPlural(seenTokens, 'token')}: position ${position}${why}`
}

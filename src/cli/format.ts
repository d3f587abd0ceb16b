/** Numbers for people: 65,536 tokens, 1.1 MiB, 12.3 s. */

const byteUnits = ['B', 'KiB', 'MiB', 'GiB', 'TiB']
const grouped = new Intl.NumberFormat('en-US', { maximumFractionDigits: 0 })

/** 65,536 */
export function formatCount(value: number): string {
  return grouped.format(value)
}

/** "1 question", "20 questions" */
export function formatPlural(count: number, noun: string): string {
  return `${formatCount(count)} ${noun}${count === 1 ? '' : 's'}`
}

/** 1.50 MiB, 210 MiB, 17 B: three digits or so. */
export function formatBytes(bytes: number): string {
  return inUnit(bytes, unitOf(bytes))
}

/** Numbers that are read beside each other, in one unit: the one that suits the smallest. 1.01 MiB, 516 MiB, 1,032 MiB */
export function formatBytesAlike(all: readonly number[]): string[] {
  const unit = unitOf(Math.min(...all.filter((bytes) => bytes > 0)))
  return all.map((bytes) => inUnit(bytes, unit))
}

/** The power of 1024 that suits a number. */
function unitOf(bytes: number): number {
  const power = Math.floor(Math.log2(Math.max(1, bytes)) / 10)
  return Math.min(byteUnits.length - 1, power)
}

function inUnit(bytes: number, power: number): string {
  const value = bytes / 1024 ** power
  if (power === 0 || value >= 100) return `${formatCount(value)} ${byteUnits[power]}`
  return `${value.toFixed(value >= 10 ? 1 : 2)} ${byteUnits[power]}`
}

/** 0.35 s, 12.3 s, 2 min 5 s */
export function formatSeconds(milliseconds: number): string {
  const seconds = milliseconds / 1000
  if (seconds < 10) return `${seconds.toFixed(2)} s`
  if (seconds < 60) return `${seconds.toFixed(1)} s`
  const whole = Math.round(seconds)
  return `${Math.floor(whole / 60)} min ${whole % 60} s`
}

/** Tokens a second; 0 when no time has passed. */
export function ratePerSecond(count: number, milliseconds: number): number {
  return milliseconds > 0 ? (count * 1000) / milliseconds : 0
}

/** Breaks text at spaces into lines of at most `width` characters, each with `indent` in front. */
export function wrapText(text: string, width: number, indent = ''): string {
  const lines: string[] = []
  for (const paragraph of text.split('\n')) {
    let line = ''
    for (const word of paragraph.split(' ')) {
      if (line !== '' && visibleLength(line) + 1 + visibleLength(word) > width - indent.length) {
        lines.push(line)
        line = word
      } else line = line === '' ? word : `${line} ${word}`
    }
    lines.push(line)
  }
  return lines.map((line) => indent + line).join('\n')
}

// biome-ignore lint/suspicious/noControlCharactersInRegex: an escape sequence begins with one
const escapes = /\x1b\[[0-9;]*m/g

function visibleLength(text: string): number {
  return text.replace(escapes, '').length
}

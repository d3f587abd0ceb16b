/** The table of `kvasir eval policies`. */
import type { PolicyEvalResult, PolicyRow } from '../../../eval/policies.ts'
import { formatCount, formatPlural } from '../format.ts'
import type { Terminal } from '../terminal.ts'

export function reportPolicies(
  { contextTokens, texts, shares, full, rows }: PolicyEvalResult,
  terminal: Terminal,
): void {
  const names = [...new Set(rows.map(({ policy }) => policy))]
  const heads = shares.map((share) => `${formatShare(share)} removed`)
  const section = (title: string, cell: (row: PolicyRow) => string): void => {
    terminal.print(terminal.paint.bold(title))
    const cells = names.map((name) => [name, ...rows.filter(({ policy }) => policy === name).map(cell)])
    terminal.table(['policy', ...heads], cells)
    terminal.print()
  }
  if (full.recall !== null) section('Answers right', ({ recall }) => (recall ?? 0).toFixed(3))
  section('Likeliest next token as with all of the cache', ({ topAgreement }) => topAgreement.toFixed(3))
  section('Mean KL divergence of next-token probabilities from those with all of the cache, nats', ({ meanKl }) =>
    meanKl.toFixed(4),
  )
  const asked =
    full.recall === null ? '' : `; with all of it, ${full.correct} of ${formatPlural(full.questions, 'answer')} right`
  terminal.print(
    `${formatPlural(texts, 'text')} of ${formatCount(contextTokens)} tokens, ` +
      `${formatPlural(full.positions, 'next token')} compared${asked}`,
  )
}

/** 0.875 is 87.5% */
export function formatShare(share: number): string {
  return `${Number((share * 100).toFixed(2))}%`
}

/** What `kvasir train-scorer` says of the scorer that it made. */
import type { Trained } from '../../../eval/scorer/train.ts'
import { formatCount, formatPlural, formatSeconds } from '../format.ts'
import type { Terminal } from '../terminal.ts'
import { formatShare } from './eval-policies-report.ts'

export interface ScorerReport extends Omit<Trained, 'layers'> {
  readonly model: string
  readonly file: string
  readonly hidden: number
  readonly texts: { readonly training: number; readonly heldOut: number }
  readonly scoreMicroseconds: number
  readonly seconds: number
}

export function reportScorer(report: ScorerReport, terminal: Terminal): void {
  const { file, hidden, recent, samples, texts, judgement, seconds } = report
  const heads = judgement.shares.map((share) => `${formatShare(share)} removed`)
  const rows = judgement.scores.map(({ score, rankCorrelation, keptMass }) => {
    return [
      score,
      rankCorrelation === null ? '' : rankCorrelation.toFixed(3),
      ...keptMass.map((mass) => mass.toFixed(3)),
    ]
  })
  terminal.print(terminal.paint.bold('Attention that goes to what is kept, of texts that were held out'))
  terminal.table(['score', 'rank correlation', ...heads], rows)
  terminal.print()
  const stay = judgement.recent > 0 ? `, the last ${judgement.recent} tokens always` : ''
  terminal.print(`Means over all KV heads${stay}. oracle: who knows the attention to come.`)
  terminal.print(
    `${formatPlural(texts.training, 'text')} to learn from, ${formatCount(samples)} samples a head, ${texts.heldOut} held out; ` +
      `${hidden === 0 ? 'linear' : formatPlural(hidden, 'hidden unit')}, ${recent} recent tokens; ` +
      `a token is scored in ${report.scoreMicroseconds.toFixed(1)} µs (${formatSeconds(seconds * 1000)} in all)`,
  )
  terminal.print(`Written: ${file}`)
}

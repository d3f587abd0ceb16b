/** The tables of `kvasir bench cache` for people. */
import type { CacheReport, CaseReport, LengthResult } from '../../../bench/cache/contract.ts'
import { formatBytes, formatCount } from '../format.ts'
import type { Terminal } from '../terminal.ts'

export function reportCache(report: CacheReport, terminal: Terminal): void {
  const { cases } = report
  terminal.table(
    ['policy', 'K, V', 'tokens', 'step ms', 'typical', 'slowest', 'update', 'typical', 'held', 'less than full f32'],
    cases.flatMap((entry) => entry.lengths.map((result) => row(entry, result))),
    2,
  )
  terminal.print()
  const recalls = cases.flatMap((entry) => entry.lengths.flatMap((result) => recallRow(entry, result)))
  if (recalls.length > 0) {
    terminal.table(['policy', 'K, V', 'tokens', 'recall beside none'], recalls, 2)
    terminal.print()
  }
  const flat = cases.flatMap((entry) => flatnessRow(entry))
  if (flat.length > 0) {
    terminal.table(['policy', 'K, V', 'from', 'to', 'time of a step'], flat, 2)
    terminal.print()
  }
  for (const line of notes(report)) terminal.print(line)
}

function row({ policy, kvDtype }: CaseReport, result: LengthResult): string[] {
  return [
    ...[policy, kvDtype, formatCount(result.tokens), formatMs(result.meanMs.median), formatMs(result.medianMs.median)],
    ...[formatMs(result.worstMs.median), share(result.updateShare.median), share(result.typicalUpdateShare.median)],
    ...[formatBytes(result.bytes), share(1 - result.bytes / result.fullF32Bytes)],
  ]
}

function recallRow({ policy, kvDtype }: CaseReport, { tokens, recallRatio }: LengthResult): string[][] {
  return recallRatio === null ? [] : [[policy, kvDtype, formatCount(tokens), `${recallRatio.toFixed(2)}x`]]
}

function flatnessRow({ policy, kvDtype, flatness }: CaseReport): string[][] {
  if (!flatness) return []
  const { fromTokens, toTokens, ratio } = flatness
  return [[policy, kvDtype, formatCount(fromTokens), formatCount(toTokens), `${ratio.toFixed(3)}x`]]
}

function notes({ heads, kvHeads, headDim, window, repeat, steps, cases, machine }: CacheReport): string[] {
  const skipped = cases.flatMap((entry) =>
    entry.skipped.map(({ tokens, skipped: reason }) => `Without ${entry.policy} at ${formatCount(tokens)}: ${reason}`),
  )
  return [
    `One layer of ${heads} heads, ${kvHeads} for keys and values, of ${headDim}; W = ${formatCount(window)}. Medians of ` +
      `${repeat} rounds of ${steps} steps. update: what of the step is not attention of its query.`,
    `${machine.processor}, ${machine.cores} cores; ${cases[0]?.description ?? ''}.`,
    ...skipped,
  ]
}

const formatMs = (ms: number): string => (ms < 10 ? ms.toFixed(3) : ms.toFixed(1))
const share = (value: number): string => `${(100 * value).toFixed(1)} %`

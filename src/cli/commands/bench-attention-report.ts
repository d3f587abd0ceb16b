/** The tables of `kvasir bench attention` for people. */
import type { AttentionReport, CandidateResult, CaseReport } from '../../../bench/attention/contract.ts'
import type { Spread } from '../../../bench/measure.ts'
import { formatBytes, formatCount } from '../format.ts'
import type { Terminal } from '../terminal.ts'

export function reportAttention(report: AttentionReport, terminal: Terminal): void {
  if (report.phase === 'memory') memoryTable(report, terminal)
  else timeTable(report, terminal)
  terminal.print()
  for (const line of [...notes(report), ...skippedLines(report)]) terminal.print(line)
}

function timeTable({ phase, cases }: AttentionReport, terminal: Terminal): void {
  const ours = [...new Set(cases.flatMap(({ results }) => results.flatMap(({ timesOf }) => Object.keys(timesOf))))]
  const hasWindow = cases.some(({ window }) => window !== null)
  const head = [
    ...['heads', 'K, V', phase === 'decode' ? 'S' : 'N', 'by', 'from', 'ms', 'lowest to highest'],
    ...[phase === 'decode' ? 'GB/s' : 'GFLOP/s', 'of the limit', ...ours.map((name) => `x ${name}`)],
    ...(hasWindow ? ['of ideal share'] : []),
  ]
  const rows = cases.flatMap((entry) => [
    ...entry.results.map((result) => [
      ...[shapeOf(entry), entry.kvDtype, formatCount(entry.length), result.candidate, result.dtype],
      ...[formatMs(result.ms.median), range(result.ms), rate(phase, result), share(result.shareOfLimit)],
      ...ours.map((name) => times(result.timesOf[name])),
      ...(hasWindow ? [times(result.timeOfIdealShare)] : []),
    ]),
    ...limitRow(entry, head.length),
  ])
  terminal.table(head, rows, 5)
}

function limitRow(entry: CaseReport, columns: number): string[][] {
  if (!entry.limit) return []
  const cells = [shapeOf(entry), entry.kvDtype, formatCount(entry.length), 'limit', '', formatMs(entry.limit.ms)]
  return [[...cells, ...Array.from({ length: columns - cells.length }, () => '')]]
}

function memoryTable({ cases }: AttentionReport, terminal: Terminal): void {
  const rows = cases.flatMap((entry) =>
    (entry.memory ?? []).map(({ candidate, dtype, scratchBytes }) => [
      ...[shapeOf(entry), entry.kvDtype, formatCount(entry.length), candidate, dtype],
      ...[formatBytes(scratchBytes.median), `${formatBytes(scratchBytes.low)} to ${formatBytes(scratchBytes.high)}`],
      formatBytes(entry.scoreBytes ?? 0),
    ]),
  )
  terminal.table(['heads', 'K, V', 'N', 'by', 'from', 'scratch', 'lowest to highest', 'all scores'], rows, 5)
}

function notes({ phase, repeat, cases, machine, versions }: AttentionReport): string[] {
  const where = Object.entries(versions).map(([name, version]) => `${name} ${version}`)
  const first = cases.at(-1)?.limit
  const read =
    first &&
    `; read bandwidth ${first.readGbPerSecond.toFixed(1)} GB/s and FMA rate ${first.fmaGflops.toFixed(0)} GFLOP/s in the last case`
  const how =
    phase === 'memory'
      ? 'scratch: the peak of the process during the call less what it held before; the result of ONNX Runtime is in it.'
      : `Medians of ${repeat} rounds in turns. The limit is the roofline of this run: the larger of bytes over read ` +
        `bandwidth and operations over FMA rate${read ?? ''}. x: time over that of ours.`
  return [how, `${machine.processor}, ${machine.cores} cores; ${where.join(', ')}.`]
}

function skippedLines({ cases }: AttentionReport): string[] {
  const lines = cases.flatMap((entry) =>
    entry.skipped.map(({ candidate, skipped }) => `Without ${candidate} at ${formatCount(entry.length)}: ${skipped}`),
  )
  return [...new Set(lines)]
}

const shapeOf = ({ heads, kvHeads, headDim }: CaseReport): string => `${heads}/${kvHeads}x${headDim}`
const range = ({ low, high }: Spread): string => `${formatMs(low)} to ${formatMs(high)}`
const formatMs = (ms: number): string => (ms < 10 ? ms.toFixed(3) : ms.toFixed(1))
const share = (value: number | null): string => (value === null ? '' : `${(100 * value).toFixed(1)} %`)
const times = (value: number | undefined): string => (value === undefined ? '' : `${value.toFixed(2)}x`)
const rate = (phase: string, { gbPerSecond, gflops }: CandidateResult): string =>
  phase === 'decode' ? gbPerSecond.toFixed(1) : gflops.toFixed(1)

/** The tables of `kvasir bench generate` for people. */
import type { CandidateResult, CaseReport, GenerateReport, ModelReport } from '../../../bench/generate/contract.ts'
import { formatBytes, formatCount } from '../format.ts'
import type { Terminal } from '../terminal.ts'

export function reportGenerate(report: GenerateReport, terminal: Terminal): void {
  const { models } = report
  terminal.table(
    ['model', 'weights', 'task', 'by', 'tokens', 'ms', 'lowest to highest', 'speed-up', 'peak memory', 'of ORT'],
    models.flatMap((model) => model.cases.flatMap((entry) => entry.results.map((result) => row(model, entry, result)))),
    4,
  )
  terminal.print()
  terminal.table(
    ['model', 'weights', 'by', 'load ms', 'lowest to highest', 'of ORT', 'equal tokens', 'difference', 'allowed'],
    models.flatMap(loadRows),
    3,
  )
  terminal.print()
  const absent = report.absent.map(({ candidate, skipped }) => `Without ${candidate}: ${skipped}.`)
  for (const line of [...notes(report), ...absent, ...new Set(models.flatMap(skippedLines))]) terminal.print(line)
}

function row({ shape, weights }: ModelReport, { kind, tokens }: CaseReport, result: CandidateResult): string[] {
  const { candidate, ms, speedup, peakBytes, peakRatio } = result
  return [
    ...[shape, weights, kind, candidate, formatCount(tokens), formatMs(ms.median)],
    ...[`${formatMs(ms.low)} to ${formatMs(ms.high)}`, times(speedup), formatBytes(peakBytes.median), times(peakRatio)],
  ]
}

function loadRows({ shape, weights, load, agreement }: ModelReport): string[][] {
  return load.map(({ candidate, ms, ratio }) => {
    const agreed = agreement.find((entry) => entry.candidate === candidate)
    const range = `${formatMs(ms.low)} to ${formatMs(ms.high)}`
    const agreedCells = agreed
      ? [`${agreed.equalTokens} of ${agreed.tokens}`, ...[agreed.difference, agreed.tolerance].map(exponential)]
      : ['', '', '']
    return [shape, weights, candidate, formatMs(ms.median), range, times(ratio), ...agreedCells]
  })
}

function notes({ machine, versions, descriptions, repeat }: GenerateReport): string[] {
  const where = Object.entries(versions).map(([name, version]) => `${name} ${version}`)
  return [
    `Medians of ${repeat === 1 ? 'one round' : `${repeat} rounds in turns`}, a process each. decode: ms a token; prefill: ms in all.`,
    'speed-up: the time of ONNX Runtime (of a prefill, the faster of its two ways) over its own; of ORT: its own over that.',
    ...Object.entries(descriptions).map(([name, text]) => `${name}: ${text}`),
    `${machine.processor}, ${machine.cores} cores; ${where.join(', ')}.`,
  ]
}

function skippedLines({ shape, weights, cases }: ModelReport): string[] {
  return cases.flatMap(({ kind, tokens, skipped }) =>
    skipped.map(
      ({ candidate, skipped: reason }) =>
        `Without ${candidate} in ${shape} ${weights}, ${kind} ${formatCount(tokens)}: ${reason}`,
    ),
  )
}

const exponential = (value: number): string => value.toExponential(1)
const formatMs = (ms: number): string => (ms < 10 ? ms.toFixed(3) : ms.toFixed(1))
const times = (value: number | null): string => (value === null ? '' : `${value.toFixed(2)}x`)

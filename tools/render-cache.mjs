/** Makes the tables of caches from the reports of `kvasir bench cache`. */
import { bytes, count, section, table } from './render-tables.mjs'

/**
 * For bench/README.md; nothing where nothing was measured.
 * @param {readonly { command: string, result: object }[]} runs
 */
export function renderCache(runs) {
  return runs.map(renderRun).join('\n\n')
}

function renderRun(run, index) {
  const { machine, heads, kvHeads, headDim, window, threads, repeat, steps, cases } = run.result
  const text =
    `${machine.processor}, ${machine.cores} cores, ${threads} ${threads === 1 ? 'thread' : 'threads'}. One layer of ` +
    `${heads} heads, ${kvHeads} for keys and values, D = ${headDim}, W = ${count(window)}. Medians of ${repeat} rounds of ` +
    `${count(steps)} steps.`
  const file = run.command.match(/--plot (\S+)/)?.[1]
  const parts = [
    stepTable(cases),
    recallTable(cases),
    flatnessTable(cases),
    file && `![steps and bytes over tokens](../${file})`,
  ]
  return section(index === 0 ? 'Caches' : `Caches, ${index + 1}`, text, [run], parts.filter(Boolean).join('\n\n'))
}

function stepTable(cases) {
  const rows = cases.flatMap(({ policy, kvDtype, lengths }) =>
    lengths.map((entry) => [
      ...[`\`${policy}\``, kvDtype, count(entry.tokens), milliseconds(entry.meanMs), milliseconds(entry.medianMs)],
      ...[milliseconds(entry.worstMs), share(entry.updateShare.median), share(entry.typicalUpdateShare.median)],
      ...[bytes(entry.bytes), share(1 - entry.bytes / entry.fullF32Bytes)],
    ]),
  )
  const head = ['policy', 'K, V', 'tokens', 'step ms', 'typical', 'slowest', 'update', 'typical', 'held', 'saved']
  return table(head, rows, 2)
}

/** Reports from before there was recall say nothing of it. */
function recallTable(cases) {
  const rows = cases.flatMap(({ policy, kvDtype, lengths }) =>
    lengths
      .filter(({ recallRatio }) => recallRatio)
      .map(({ tokens, recallRatio }) => [`\`${policy}\``, kvDtype, count(tokens), recallRatio.toFixed(2)]),
  )
  return rows.length > 0 && table(['policy', 'K, V', 'tokens', 'a step with recall beside one without'], rows, 2)
}

function flatnessTable(cases) {
  const rows = cases.flatMap(({ policy, kvDtype, flatness }) =>
    flatness
      ? [[`\`${policy}\``, kvDtype, count(flatness.fromTokens), count(flatness.toTokens), flatness.ratio.toFixed(3)]]
      : [],
  )
  return rows.length > 0 && table(['policy', 'K, V', 'from', 'to', 'time of a step'], rows, 2)
}

const milliseconds = ({ median }) => (median < 10 ? median.toFixed(3) : median.toFixed(1))
const share = (value) => `${(100 * value).toFixed(1)} %`

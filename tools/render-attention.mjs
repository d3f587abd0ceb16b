/** Makes the tables of attention from the reports of `kvasir bench attention`: short ones and whole ones. */
import { bytes, count, section, table } from './render-tables.mjs'

/**
 * For the README: ours beside the best of ONNX Runtime's operators.
 * @param {readonly { command: string, result: object }[]} runs
 */
export function renderAttention(runs) {
  const of = (test) => runs.filter(({ result }) => test(result) && !isSingleThread(result))
  const parts = [
    renderOrigin(runs),
    renderDecode(of(({ phase, cases }) => phase === 'decode' && !hasWindow(cases))),
    renderPrefill(of(({ phase, cases }) => phase === 'prefill' && !hasWindow(cases))),
    renderWindow(of(({ cases }) => hasWindow(cases))),
    renderMemory(of(({ phase }) => phase === 'memory')),
  ]
  return parts.filter(Boolean).join('\n\n')
}

function renderOrigin(runs) {
  if (runs.length === 0) return ''
  const machines = [...new Set(runs.map(({ result: { machine } }) => `${machine.processor}, ${machine.cores} cores`))]
  const [{ result }] = runs
  return (
    `Attention below: ${machines.join('; ')}; onnxruntime ${result.versions['onnxruntime-node']}. How it is measured, and ` +
    'all who took part: [bench/README.md](bench/README.md).'
  )
}

/** The picture that a command drew, seen from `folder`. */
function picture(runs, folder) {
  const files = runs.flatMap(({ command }) => command.match(/--plot (\S+)/)?.[1] ?? [])
  return files.map((file) => `![${file.match(/([^/]+)\.svg$/)?.[1] ?? file}](${folder}${file})`).join('\n')
}

/** For bench/README.md: everyone who took part. */
export function renderAttentionInFull(runs) {
  if (runs.length === 0) return 'Nothing has been measured with this version: `npm run results -- attention`.'
  const sections = runs.map((run) => {
    const { phase, machine, versions, repeat, cases } = run.result
    const { threads } = cases[0]
    const flags = machine.flags.length ? ` (${machine.flags.join(', ')})` : ''
    const text =
      `${machine.processor}${flags}, ${machine.cores} cores, ${machine.memoryGiB} GiB. ` +
      `${Object.entries(versions)
        .map(([name, version]) => `${name} ${version}`)
        .join(', ')}. ${threads} ${threads === 1 ? 'thread' : 'threads'}, medians of ${repeat} rounds.`
    const body = phase === 'memory' ? memoryTable(cases) : timeTable(phase, cases)
    const parts = [body, skippedList(cases), picture([run], '../')]
    return section(titleOf(run.result), text, [run], parts.filter(Boolean).join('\n\n'))
  })
  return sections.join('\n\n')
}

function titleOf({ phase, cases }) {
  const window = cases[0].window === null ? '' : `, window ${count(cases[0].window)}`
  return `${{ decode: 'Decode', prefill: 'Prefill', memory: 'Scratch memory' }[phase]}${window}`
}

const hasWindow = (cases) => cases.some(({ window }) => window !== null)
const isSingleThread = ({ machine, cases }) => cases[0].threads === 1 && machine.cores > 1

function renderDecode(runs) {
  if (runs.length === 0) return ''
  const rows = runs.flatMap(({ result }) =>
    result.cases.map((entry) => [
      ...shape(entry),
      ...ours(entry, 'native', 'gbPerSecond'),
      ...peers(entry, 'ort-node', 'native'),
      ms(find(entry, 'wasm')),
      ...peers(entry, 'ort-web', 'wasm'),
    ]),
  )
  const head = ['K, V', 'heads', 'tokens', 'native ms', 'GB/s', 'of the limit', 'ORT ms', 'x native']
  const text =
    'One decode step of one layer. The limit is the roofline: the larger of bytes over read bandwidth and operations over ' +
    'the FMA rate, both measured in the same run. ORT: the fastest of the attention operators of onnxruntime-node, on the ' +
    'same numbers; ORT web: the same of onnxruntime-web, as WebAssembly.'
  return section('Attention, a decode step', text, runs, table([...head, 'wasm ms', 'ORT web ms', 'x wasm'], rows, 2))
}

function renderPrefill(runs) {
  if (runs.length === 0) return ''
  const rows = runs.flatMap(({ result }) =>
    result.cases.map((entry) => [
      ...shape(entry),
      ...ours(entry, 'native', 'gflops'),
      ...peers(entry, 'ort-node', 'native'),
      ms(find(entry, 'wasm')),
      ...peers(entry, 'ort-web', 'wasm'),
    ]),
  )
  const head = ['K, V', 'heads', 'tokens', 'native ms', 'GFLOP/s', 'of the limit', 'ORT ms', 'x native']
  const text =
    'Causal attention of a prompt over itself, one layer; operations of the useful half. The limit is the rate of f32 FMA: ' +
    'with bf16, dot products of that type can go past it.'
  return section('Attention, a prompt', text, runs, table([...head, 'wasm ms', 'ORT web ms', 'x wasm'], rows, 2))
}

function renderWindow(runs) {
  const lines = runs.flatMap(({ result }) =>
    result.cases.flatMap((entry) =>
      entry.results
        .filter(({ timeOfIdealShare }) => timeOfIdealShare !== undefined)
        .map(
          ({ candidate, timeOfIdealShare, ms: time }) =>
            `With a window of ${count(entry.window)} at ${count(entry.length)} tokens (${entry.kvDtype}), ${candidate} takes ` +
            `${time.median.toFixed(0)} ms, ${timeOfIdealShare.toFixed(2)} times the time of all keys times the share of ` +
            'query-key pairs that the window leaves.',
        ),
    ),
  )
  return lines.length === 0 ? '' : section('Attention, a window', lines.join('\n'), runs, '')
}

function renderMemory(runs) {
  if (runs.length === 0) return ''
  const names = [...new Set(runs.flatMap(({ result }) => result.cases.flatMap(({ memory }) => memory.map(nameOf))))]
  const rows = runs.flatMap(({ result }) =>
    result.cases.map(({ length, memory, scoreBytes }) => [
      count(length),
      bytes(scoreBytes),
      ...names.map((name) => bytes(memory.find(({ candidate }) => candidate === name)?.scratchBytes.median)),
    ]),
  )
  const [{ heads, kvHeads, headDim }] = runs[0].result.cases
  const text =
    `What the process held at most during one causal call beyond what it held before it, ${heads} heads, ${kvHeads} KV, ` +
    `D = ${headDim}. Empty: would not fit.`
  return section('Attention, scratch memory', text, runs, table(['tokens', 'all scores', ...names], rows, 0))
}

function timeTable(phase, cases) {
  const own = [...new Set(cases.flatMap(({ results }) => results.flatMap(({ timesOf }) => Object.keys(timesOf))))]
  const isWindowed = hasWindow(cases)
  const rows = cases.flatMap((entry) => [
    ...entry.results.map((result) => [
      ...[entry.kvDtype, heads(entry), count(entry.length), result.candidate, result.dtype, ms(result)],
      `${milliseconds(result.ms.low)} to ${milliseconds(result.ms.high)}`,
      (phase === 'decode' ? result.gbPerSecond : result.gflops).toFixed(1),
      share(result.shareOfLimit),
      ...own.map((name) => times(result.timesOf[name])),
      ...(isWindowed ? [times(result.timeOfIdealShare)] : []),
    ]),
    ...(entry.limit ? [limitRow(phase, entry, own.length + (isWindowed ? 1 : 0))] : []),
  ])
  const rate = phase === 'decode' ? 'GB/s' : 'GFLOP/s'
  const head = ['K, V', 'heads', phase === 'decode' ? 'S' : 'N', 'by', 'from', 'ms', 'lowest to highest', rate]
  const last = isWindowed ? ['of the ideal share'] : []
  return table([...head, 'of the limit', ...own.map((name) => `x ${name}`), ...last], rows, 2)
}

/** What the machine gave: read bandwidth or FMA rate, in the column of the rates. */
function limitRow(phase, { kvDtype, length, limit, ...entry }, numRest) {
  const rate = phase === 'decode' ? limit.readGbPerSecond : limit.fmaGflops
  const cells = [kvDtype, heads(entry), count(length), '*limit*', '', milliseconds(limit.ms), '', rate.toFixed(1), '']
  return [...cells, ...Array.from({ length: numRest }, () => '')]
}

function memoryTable(cases) {
  const rows = cases.flatMap((entry) =>
    entry.memory.map(({ candidate, dtype, scratchBytes }) => [
      ...[entry.kvDtype, heads(entry), count(entry.length), candidate, dtype, bytes(scratchBytes.median)],
      `${bytes(scratchBytes.low)} to ${bytes(scratchBytes.high)}`,
      bytes(entry.scoreBytes),
    ]),
  )
  return table(['K, V', 'heads', 'N', 'by', 'from', 'scratch', 'lowest to highest', 'all scores'], rows, 2)
}

function skippedList(cases) {
  const lines = cases.flatMap(({ length, skipped }) =>
    skipped.map(({ candidate, skipped: reason }) => `- without ${candidate} at ${count(length)}: ${reason}`),
  )
  return [...new Set(lines)].join('\n')
}

const nameOf = ({ candidate }) => candidate
const heads = ({ heads: H, kvHeads, headDim }) => `${H} / ${kvHeads} x ${headDim}`
const shape = (entry) => [entry.kvDtype, heads(entry), count(entry.length)]
const find = ({ results }, name) => results.find(({ candidate }) => candidate === name)
const milliseconds = (value) => (value < 10 ? value.toFixed(3) : value.toFixed(1))
const ms = (result) => (result ? milliseconds(result.ms.median) : '')
const share = (value) => (value === null || value === undefined ? '' : `${Math.round(100 * value)} %`)
const times = (value) => (value === undefined ? '' : `${value.toFixed(value < 10 ? 2 : 1)}x`)

function ours(entry, name, rate) {
  const result = find(entry, name)
  return [ms(result), result ? result[rate].toFixed(1) : '', share(result?.shareOfLimit)]
}

/** The fastest of a runtime's operators: its time, and that over ours. */
function peers({ results }, prefix, own) {
  const [best] = results
    .filter(({ candidate }) => candidate.startsWith(prefix))
    .sort((a, b) => a.ms.median - b.ms.median)
  return [ms(best), times(best?.timesOf[own])]
}

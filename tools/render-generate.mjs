/** Makes the tables of whole models from the reports of `kvasir bench generate`. */
import { bytes, count, section, table } from './render-tables.mjs'

/**
 * For bench/README.md; nothing where nothing was measured.
 * @param {readonly { command: string, result: object }[]} runs
 */
export function renderGenerate(runs) {
  return runs.map(renderRun).join('\n\n')
}

/**
 * For the README: what a step takes, by whom.
 * @param {readonly { command: string, result: object }[]} runs
 */
export function renderGenerateInShort(runs) {
  const models = runs.flatMap(({ result }) => result.models)
  if (models.length === 0) return ''
  const { window, versions } = runs[0].result
  const peer = versions['node-llama-cpp']
  const text =
    `Models of random weights, from the same file. Decode: ms a token behind so many others; prefill: ms in all. ORT: the ` +
    `uncut graph in onnxruntime-node, for a prefill the faster of two ways. W: the policy \`window\` of ${count(window)}. ` +
    `${peer ? `llama.cpp: node-llama-cpp ${peer}, the same weights as GGUF, K and V in f16. ` : ''}` +
    'Memory: peak of the process over that of ORT.'
  const head = ['model', 'weights', 'task', 'tokens', 'ms', 'ms with W', 'ORT ms', 'x', 'llama.cpp ms', 'memory']
  const picture = runs.map((run) => pictureOf(run, '')).find(Boolean)
  return section(
    'Whole models',
    text,
    runs,
    [table(head, models.flatMap(shortRows), 3), picture].filter(Boolean).join('\n\n'),
  )
}

/** What a command drew, seen from `folder`. */
function pictureOf({ command }, folder) {
  const file = command.match(/--plot (\S+)/)?.[1]
  return file && `![ms a token over the context](${folder}${file})`
}

function shortRows({ shape, weights, cases }) {
  return cases.map(({ kind, tokens, results }) => {
    const by = (name) => results.find(({ candidate }) => candidate === name)
    const cell = (result) => (result ? milliseconds(result.ms.median) : '')
    const stock = ['onnxruntime', 'onnxruntime-chunks'].flatMap((name) => by(name) ?? [])
    const fastest = stock.sort((one, other) => one.ms.median - other.ms.median)[0]
    const own = by('kvasir')
    return [
      ...[shape, weights, kind, count(tokens), cell(own), cell(by('kvasir-window')), cell(fastest)],
      ...[times(own?.speedup ?? null), cell(by('node-llama-cpp')), times(own?.peakRatio ?? null)],
    ]
  })
}

function renderRun(run) {
  const { machine, versions, threads, repeat, models, absent = [] } = run.result
  const packages = Object.entries(versions).map(([name, version]) => `${name} ${version}`)
  const text =
    `${machine.processor}, ${machine.cores} cores, ${machine.memoryGiB} GiB. ${packages.join(', ')}. ` +
    `${threads} ${threads === 1 ? 'thread' : 'threads'}, medians of ${repeat === 1 ? 'one round' : `${repeat} rounds`}. ` +
    'Decode: ms a token; prefill: ms in all. Speed-up, memory and load: beside onnxruntime.'
  const missing = absent.map(({ candidate, skipped: reason }) => `- \`${candidate}\` did not take part: ${reason}`)
  const skipped = [...missing, ...models.flatMap(skippedLines)].join('\n')
  return section(
    `Whole models: ${[...new Set(models.map(({ shape }) => shape))].join(', ')}`,
    text,
    [run],
    [timeTable(models), loadTable(models), skipped, pictureOf(run, '../')].filter(Boolean).join('\n\n'),
  )
}

function timeTable(models) {
  const rows = models.flatMap(({ shape, weights, cases }) =>
    cases.flatMap(({ kind, tokens, results }) =>
      results.map(({ candidate, ms, speedup, peakBytes, peakRatio }) => [
        ...[shape, weights, kind, `\`${candidate}\``, count(tokens), milliseconds(ms.median)],
        ...[`${milliseconds(ms.low)} to ${milliseconds(ms.high)}`, times(speedup), bytes(peakBytes.median)],
        times(peakRatio),
      ]),
    ),
  )
  const head = [
    'model',
    'weights',
    'task',
    'by',
    'tokens',
    'ms',
    'lowest to highest',
    'speed-up',
    'peak memory',
    'of it',
  ]
  return table(head, rows, 4)
}

function loadTable(models) {
  const rows = models.flatMap(({ shape, weights, load, agreement }) =>
    load.map(({ candidate, ms, ratio }) => {
      const agreed = agreement.find((entry) => entry.candidate === candidate)
      const cells = agreed
        ? [`${agreed.equalTokens} of ${agreed.tokens}`, agreed.difference.toExponential(1)]
        : ['', '']
      return [shape, weights, `\`${candidate}\``, milliseconds(ms.median), times(ratio), ...cells]
    }),
  )
  return table(['model', 'weights', 'by', 'load ms', 'of it', 'equal tokens', 'difference'], rows, 3)
}

function skippedLines({ shape, weights, cases }) {
  return cases.flatMap(({ kind, tokens, skipped }) =>
    skipped.map(
      ({ candidate, skipped: reason }) =>
        `- \`${candidate}\` did not take part in ${shape} ${weights}, ${kind} ${count(tokens)}: ${reason}`,
    ),
  )
}

const milliseconds = (ms) => (ms < 10 ? ms.toFixed(2) : ms.toFixed(1))
const times = (value) => (value === null ? '' : `${value.toFixed(2)}x`)

/** Makes the tables of the README from what docs/results/ holds. */
import { renderAttention } from './render-attention.mjs'
import { renderGenerateInShort } from './render-generate.mjs'
import { count, mebibytes, section, table } from './render-tables.mjs'

const marks = ['<!-- results: made by tools/results.mjs -->', '<!-- end of results -->']

/** Puts `text` between the two marks of a document. */
export function replaceBetweenMarks(document, text) {
  const begin = document.indexOf(marks[0])
  const end = document.indexOf(marks[1])
  if (begin < 0 || end < begin) throw new Error(`expected "${marks[0]}" and "${marks[1]}" `)
  return `${document.slice(0, begin + marks[0].length)}\n\n${text.trim()}\n\n${document.slice(end)}`
}

/**
 * @param {object} results as tools/results.mjs writes them
 * @param {readonly object[]} attention reports of `bench attention`; without any, nothing is said of it
 * @param {readonly object[]} generate the same of `bench generate`
 */
export function renderResults({ machine, recall, memory, linear }, attention, generate = []) {
  const { processor, cores, memoryGiB, node } = machine
  return [
    `Measured by \`node tools/results.mjs\` on ${processor}, ${cores} cores, ${memoryGiB} GiB, Node ${node}.`,
    renderRecall(recall),
    renderMemory(memory[0]),
    renderLinear(linear[0]),
    renderAttention(attention),
    renderGenerateInShort(generate),
  ]
    .filter(Boolean)
    .join('\n\n')
}

function renderRecall(runs) {
  const rows = runs.map(({ result }) => [
    result.policy,
    count(result.window),
    count(result.contextTokens),
    `${result.correct} of ${result.questions}`,
    result.recall.toFixed(3),
    mebibytes(result.kvBytes),
    mebibytes(result.fullKvBytes),
  ])
  return section(
    'Recall of facts from the beginning of a document',
    'The bundled model reads generated stories and answers questions about their first page. Sliding window: the ' +
      'same number of tokens, the newest.',
    runs,
    table(['policy', 'W', 'tokens read', 'answers right', 'recall', 'KV cache', 'cache of all tokens'], rows, 1),
  )
}

function renderMemory({ command, result }) {
  const [first, last] = [result.samples[0], result.samples.at(-1)]
  const growth = `${result.rssGrowthBytes < 0 ? '-' : '+'}${mebibytes(Math.abs(result.rssGrowthBytes))}`
  const text =
    `KV cache after ${count(first.tokens)} tokens: ${count(first.kvBytes)} bytes; after ${count(last.tokens)}: ` +
    `${count(last.kvBytes)} bytes. The process from the first half of the samples to the second, by medians: ${growth} ` +
    `at ${mebibytes(last.rssBytes)}.`
  return section('Memory', text, [{ command }], '![memory over tokens read](docs/results/memory.svg)')
}

function renderLinear({ command, result }) {
  const { window, heads, headDim, dtype, rows, flatness } = result
  const text =
    `One decode step, W = ${count(window)}, ${heads} heads, D = ${headDim}, ${dtype}. full: the whole history is kept ` +
    'and the best W chosen anew at each step, with the same result. dense: attention over the whole history. After ' +
    `1,048,576 tokens a step of the linear cache takes ${flatness.ratio.toFixed(2)} times what it takes after ` +
    `${count(flatness.window)}.`
  const cells = rows.map((row) => [
    count(row.tokens),
    mebibytes(row.fullBytes),
    mebibytes(row.linearBytes),
    row.denseMs.toFixed(2),
    row.fullMs.toFixed(2),
    row.linearMs.toFixed(2),
    `${row.speedup.toFixed(1)}x`,
  ])
  const head = ['tokens', 'full memory', 'linear memory', 'dense ms', 'full ms', 'linear ms', 'full / linear']
  return section('The linear cache as the text grows', text, [{ command }], table(head, cells, 0))
}

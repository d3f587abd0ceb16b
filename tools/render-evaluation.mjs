/** Makes the tables of docs/evaluation.md from the reports of `kvasir eval policies`, `eval dtypes` and `train-scorer`. */
import { count, mebibytes, section, table } from './render-tables.mjs'

/**
 * Nothing where nothing was measured.
 * @param {readonly { command: string, result: object }[]} runs
 */
export function renderEvaluation(runs) {
  const of = (word) => runs.filter(({ command }) => command.startsWith(`kvasir ${word}`))
  const parts = [
    ...of('eval policies').map(renderPolicies),
    renderRecall(of('eval recall')),
    ...of('train-scorer').map(renderScorer),
    ...of('eval dtypes').map(renderDtypes),
  ]
  return parts.filter(Boolean).join('\n\n')
}

function renderPolicies(run) {
  const { contextTokens, texts, shares, full, rows } = run.result
  const names = [...new Set(rows.map(({ policy }) => policy))]
  const head = ['policy', ...shares.map(percent)]
  const body = (cell) =>
    table(
      head,
      names.map((name) => [name, ...rows.filter((row) => row.policy === name).map(cell)]),
      1,
    )
  const file = run.command.match(/--plot docs\/(\S+)/)?.[1]
  const { sinks, recent } = Object.fromEntries(
    [...run.command.matchAll(/--(sinks|recent) (\d+)/g)].map(([, name, value]) => [name, value]),
  )
  const alike =
    recent === undefined ? '' : ` The first ${sinks ?? 0} and the last ${recent} tokens stay with all of them.`
  const text =
    `${texts === 1 ? '1 story' : `${count(texts)} stories`} of ${count(contextTokens)} tokens, ${count(full.questions)} questions, ` +
    `${count(full.positions)} next tokens of answers. With all of the cache ${count(full.correct)} answers are right.${alike}`
  const tables = [
    `Answers right, by share of KV removed:\n\n${body(({ recall }) => recall.toFixed(3))}`,
    `Likeliest next token as with all of the cache:\n\n${body(({ topAgreement }) => topAgreement.toFixed(3))}`,
    `Mean KL divergence, nats:\n\n${body(({ meanKl }) => meanKl.toFixed(4))}`,
    file && `![recall and agreement over the share removed](${file})`,
  ]
  const title = recent === undefined ? 'Policies as they are' : 'Scores with the same protection'
  return section(title, text, [run], tables.filter(Boolean).join('\n\n'))
}

function renderRecall(runs) {
  if (runs.length === 0) return ''
  const rows = runs.map(({ command, result }) => [
    result.policy,
    command.match(/--importance (\S+)/)?.[1] ?? '',
    count(result.window),
    count(result.contextTokens),
    percent(1 - result.window / result.contextTokens),
    `${result.correct} of ${result.questions}`,
    result.recall.toFixed(3),
  ])
  const head = ['policy', 'importance', 'W', 'tokens read', 'removed', 'answers right', 'recall']
  return section('Long documents', 'Facts at the beginning, questions at the end.', runs, table(head, rows, 2))
}

function renderScorer(run) {
  const { hidden, recent, samples, texts, judgement, scoreMicroseconds } = run.result
  const rows = judgement.scores.map(({ score, rankCorrelation, keptMass }) => {
    return [
      score,
      rankCorrelation === null ? '' : rankCorrelation.toFixed(3),
      ...keptMass.map((mass) => mass.toFixed(3)),
    ]
  })
  const text =
    `The scorer of kvasir-tiny: ${hidden === 0 ? 'linear' : `${hidden} hidden units`}, ${count(texts.training)} stories to learn ` +
    `from, ${count(samples)} samples a head, ${recent} recent tokens. Share of later attention that goes to what is kept, on ` +
    `${count(texts.heldOut)} stories that were held out, means over all KV heads. A token is scored in ` +
    `${scoreMicroseconds.toFixed(1)} µs, all layers and heads together.`
  return section(
    'The learned importance',
    text,
    [run],
    table(['score', 'rank correlation', ...judgement.shares.map(percent)], rows, 1),
  )
}

function renderDtypes(run) {
  const { reference, referenceBytes, rows } = run.result
  const cells = rows.map(({ type, topAgreement, meanKl, correct, questions, kvBytes }) => [
    ...[type, `${(100 * topAgreement).toFixed(2)} %`, meanKl.toExponential(1)],
    ...[questions === 0 ? '' : `${correct} of ${questions}`, mebibytes(kvBytes)],
  ])
  const text = `Beside ${reference} (${mebibytes(referenceBytes)}), over ${count(rows[0]?.positions ?? 0)} next tokens.`
  const head = ['K/V', 'same likeliest token', 'mean KL, nats', 'answers right', 'KV cache']
  return section('Storage types', text, [run], table(head, cells, 1))
}

/** 0.875 is 87.5 %. */
function percent(share) {
  return `${Number((100 * share).toFixed(1))} %`
}

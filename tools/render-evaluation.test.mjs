import { expect, test } from 'vitest'
import { renderEvaluation } from './render-evaluation.mjs'
import { expectCommands, recallReport } from './testing/figures.mjs'

const row = { policy: 'linear:learned', recall: 0.95, topAgreement: 0.9876, meanKl: 0.01234 }
const policies = {
  ...{ contextTokens: 2048, texts: 4, shares: [0.25, 0.875], full: { questions: 40, correct: 39, positions: 400 } },
  rows: [
    { ...row, share: 0.25 },
    { ...row, share: 0.875, recall: 0.5 },
  ],
}
const judgement = { shares: [0.25], scores: [{ score: 'learned', rankCorrelation: 0.5, keptMass: [0.9] }] }
const scorer = {
  hidden: 0,
  recent: 32,
  samples: 7000,
  texts: { training: 8, heldOut: 2 },
  judgement,
  scoreMicroseconds: 8.71,
}
const dtype = { type: 'int8/int4', topAgreement: 0.9951, meanKl: 0.00012, questions: 40, correct: 39, kvBytes: 2 ** 20 }
const dtypes = { reference: 'f16', referenceBytes: 2 ** 22, rows: [{ ...dtype, positions: 1234 }] }
const runs = Object.entries({
  'eval policies --plot docs/results/policies.svg': policies,
  'eval policies --sinks 4 --recent 32': policies,
  'eval recall --importance learned': recallReport(90),
  'train-scorer --passages 10': scorer,
  'eval dtypes': dtypes,
}).map(([command, result]) => ({ command: `kvasir ${command}`, result }))

test('figures of evaluations become tables, each with its command', () => {
  const text = renderEvaluation(runs)
  expect(text).toContain('| policy | 25 % | 87.5 % |\n| --- | ---: | ---: |\n| linear:learned | 0.950 | 0.500 |')
  expect(text).toContain('| linear:learned | 0.988 | 0.988 |')
  expect(text).toContain('| linear:learned | 0.0123 | 0.0123 |')
  expect(text).toContain('![recall and agreement over the share removed](results/policies.svg)')
  expect(text).toContain('The first 4 and the last 32 tokens stay with all of them.')
  expect(text).toContain('| linear | learned | 256 | 65,536 | 99.6 % | 90 of 100 | 0.900 |')
  expect(text).toContain('| learned | 0.500 | 0.900 |')
  expect(text).toContain('A token is scored in 8.7 µs')
  expect(text).toContain('| int8/int4 | 99.51 % | 1.2e-4 | 39 of 40 | 1.00 MiB |')
  expectCommands(
    text,
    runs.map(({ command }) => command.replace('kvasir ', '')),
  )
  expect(renderEvaluation([])).toBe('')
})

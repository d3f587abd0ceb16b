/** `kvasir plan` for people: tables of what `plan-figures.ts` counted. */
import { formatBytes, formatBytesAlike, formatCount, formatPlural } from './format.ts'
import type { CacheFigures, Plan, PlanRequest, StepFigures } from './plan-figures.ts'
import type { PlanShape } from './plan-shape.ts'
import type { Terminal } from './terminal.ts'

/** What was planned: a model, by name, and what was asked of it. */
export interface PlanSubject {
  readonly name: string
  readonly shape: PlanShape
  readonly request: PlanRequest
}

export function reportPlan({ name, shape, request }: PlanSubject, plan: Plan, terminal: Terminal): void {
  const { contextTokens, batch, kvDtype, budgetBytes } = request
  const paragraph = (text: string): void => terminal.print(`\n${terminal.paint.bold(text)}`)
  const type = shape.modelType === undefined ? '' : `, ${shape.modelType}`
  terminal.print(terminal.paint.bold(`${name}${type}`))
  terminal.table(
    ['layers', 'query heads', 'KV heads', 'head dim', 'own windows', 'importance'],
    [
      [
        ...[shape.numLayers, shape.numHeads, shape.numKvHeads, shape.headDim].map(formatCount),
        describeOwnWindows(shape),
        shape.hasImportance ? 'yes' : 'no',
      ],
    ],
    0,
  )
  const sequences = formatPlural(batch, 'sequence')
  paragraph(`Attention of one step after ${formatCount(contextTokens)} tokens, ${sequences}, all layers`)
  stepTable(plan.steps, terminal)
  paragraph(`Cache of ${sequences} by type; sessions in ${formatBytes(budgetBytes)}`)
  cacheTable('type', plan, plan.dtypes, ({ dtype }) => (dtype === kvDtype ? `${dtype} *` : dtype), terminal)
  paragraph(`The same in ${kvDtype} by KV heads`)
  const headName = ({ kind, numKvHeads }: Plan['heads'][number]): string =>
    `${kind.toUpperCase()}, ${numKvHeads}${numKvHeads === shape.numKvHeads ? ' *' : ''}`
  cacheTable('KV heads', plan, plan.heads, headName, terminal)
  terminal.print()
  terminal.print('* what was asked for. x: multiplications. saved: against the first row with all its tokens.')
  for (const line of [...describeSavings({ shape, request }, plan), ...describeSessions(request, plan)]) {
    terminal.print(line)
  }
}

/** none; 4,096 in 21 layers */
function describeOwnWindows({ layerWindows }: PlanShape): string {
  const own = layerWindows.filter((window) => window !== null)
  const sizes = [...new Set(own)].map((size) => {
    return `${formatCount(size)} in ${own.filter((window) => window === size).length} layers`
  })
  return sizes.join(', ') || 'none'
}

function stepTable(steps: readonly StepFigures[], terminal: Terminal): void {
  const cacheNames = { none: 'no cache', full: 'cache of all tokens', kept: 'cache of the tokens kept' }
  const pairNames = { every: ', every pair', causal: ', causal', kept: ', causal, tokens kept' }
  const moved = formatBytesAlike(steps.map(({ bytes }) => bytes ?? 0))
  terminal.table(
    ['', 'x for scores', 'x for outputs', 'FLOPs', 'bytes moved'],
    steps.map((step, n) => [
      `${cacheNames[step.cache]}${step.cache === 'none' ? pairNames[step.pairs] : ''}`,
      formatWork(step.scoreMultiplications),
      formatWork(step.outputMultiplications),
      formatWork(step.flops),
      step.bytes === null ? '' : (moved[n] as string),
    ]),
  )
}

function cacheTable<T extends CacheFigures>(
  head: string,
  { isBounded }: Plan,
  rows: readonly T[],
  name: (row: T) => string,
  terminal: Terminal,
): void {
  const saved = (bytes: number): string => formatShare(1 - bytes / (rows[0] as T).fullBytes)
  const keptHead = isBounded ? ['kept', 'saved', 'sessions'] : []
  const column = (bytesOf: (row: T) => number): string[] => formatBytesAlike(rows.map(bytesOf))
  const [each, all, kept] = [
    column((row) => row.bytesPerToken),
    column((row) => row.fullBytes),
    column((row) => row.bytes),
  ]
  terminal.table(
    [head, 'a token', 'all tokens', 'saved', 'sessions', ...keptHead],
    rows.map((row, n) => [
      name(row),
      each[n] as string,
      all[n] as string,
      saved(row.fullBytes),
      formatCount(row.fullSessions),
      ...(isBounded ? [kept[n] as string, saved(row.bytes), formatCount(row.sessions)] : []),
    ]),
  )
}

/** What windows and the type save. */
function describeSavings({ shape, request }: Omit<PlanSubject, 'name'>, plan: Plan): string[] {
  const { kvDtype, window } = request
  const { fullBytes } = chosenFigures(request, plan)
  const { byWindow, byDtype } = plan.saved
  const lines: string[] = []
  if (plan.isBounded) {
    const most = window === undefined ? '' : `at most ${formatCount(window)} tokens for each KV head`
    const own = shape.layerWindows.some((tokens) => tokens !== null) ? "what the model's own windows hold" : ''
    const [saved, all] = formatBytesAlike([byWindow, fullBytes])
    const what = [most, own].filter(Boolean).join(' and ')
    lines.push(`Kept: ${what}. That saves ${saved} of ${all} (${formatShare(byWindow / fullBytes)}).`)
  }
  if (byDtype > 0) {
    const share = formatShare(byDtype / (fullBytes + byDtype))
    lines.push(`All tokens in ${kvDtype} instead of f32: that saves ${formatBytes(byDtype)} (${share}).`)
  }
  return lines
}

/** What fits into the budget, and what does not. */
function describeSessions(request: PlanRequest, plan: Plan): string[] {
  const { kvDtype, batch, budgetBytes, contextTokens } = request
  const { bytes, sessions, fullSessions } = chosenFigures(request, plan)
  const budget = formatBytes(budgetBytes)
  const each = `${formatCount(contextTokens)} tokens in ${kvDtype}`
  if (sessions === 0)
    return [`Not one session of ${each} fits into ${budget}: one takes ${formatBytes(bytes / batch)}.`]
  const all = plan.isBounded ? ` (${formatCount(fullSessions)} with all tokens)` : ''
  const fitting = `Into ${budget} fit ${formatPlural(sessions, 'session')} of ${each}${all}.`
  if (batch <= sessions) return [fitting]
  return [fitting, `The batch of ${formatCount(batch)} does not fit: it takes ${formatBytes(bytes)}.`]
}

function chosenFigures({ kvDtype }: PlanRequest, { dtypes }: Plan): CacheFigures {
  return dtypes.find(({ dtype }) => dtype === kvDtype) as CacheFigures
}

/** 99.8 %; what is not quite everything is never shown as 100 %. */
function formatShare(share: number): string {
  return share > 0.9995 && share < 1 ? '> 99.9 %' : `${(100 * share).toFixed(1)} %`
}

const workUnits = ['', ' K', ' M', ' G', ' T', ' P', ' E', ' Z', ' Y']

/** 4.504 P (10^15), 34.36 G, 512: four digits, as counts of one table are ten powers of ten apart; all are in --json. */
function formatWork(count: number): string {
  const power = Math.min(workUnits.length - 1, Math.max(0, Math.floor(Math.log10(Math.max(1, count)) / 3)))
  const value = count / 1000 ** power
  return `${power === 0 ? value : value.toPrecision(4)}${workUnits[power]}`
}

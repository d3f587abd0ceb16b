/** Draws the times of a bench of attention over its lengths as SVG: a panel for each storage type and number of heads. */
import { drawPanels, type Line } from '../panels.ts'
import type { AttentionReport, CaseReport } from './contract.ts'

const limitName = 'limit'

/** The picture as SVG text. */
export async function plotAttention({ cases, phase }: AttentionReport): Promise<string> {
  const panels = groupCases(cases).map(({ title, cases: members }) => {
    const lengths = members.map(({ length }) => length)
    return { title, lines: lines(members), range: { min: Math.min(...lengths), max: Math.max(...lengths) } }
  })
  return await drawPanels(panels, { x: phase === 'decode' ? 'S' : 'N', y: phase === 'memory' ? 'MiB' : 'ms' })
}

function groupCases(cases: readonly CaseReport[]) {
  const groups = new Map<string, CaseReport[]>()
  for (const entry of cases) {
    const { kvDtype, heads, kvHeads, headDim } = entry
    const title = `${kvDtype}, ${heads} heads, ${kvHeads} KV heads, D = ${headDim}`
    groups.set(title, [...(groups.get(title) ?? []), entry])
  }
  return [...groups].map(([title, members]) => ({ title, cases: members }))
}

/** One line a contestant, named the same in all panels; dashes for what nobody can beat, or for scores written down. */
function lines(cases: readonly CaseReport[]): Line[] {
  const points = new Map<string, [number, number][]>()
  const add = (name: string, length: number, value: number | undefined) => {
    if (value !== undefined && value > 0) points.set(name, [...(points.get(name) ?? []), [length, value]])
  }
  for (const { length, results, memory = [], limit, scoreBytes } of cases) {
    for (const { candidate, ms } of results) add(candidate, length, ms.median)
    for (const { candidate, scratchBytes } of memory) add(candidate, length, scratchBytes.median / 2 ** 20)
    add(limitName, length, limit?.ms)
    add('scores', length, scoreBytes && scoreBytes / 2 ** 20)
  }
  return [...points].map(([name, data]) => ({ name, data, isDashed: name === limitName || name === 'scores' }))
}

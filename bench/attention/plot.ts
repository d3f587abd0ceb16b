/** Draws the times of a bench of attention over its lengths as SVG: a panel for each storage type and number of heads. */
import { KvasirError } from '../../src/tensor/error.ts'
import type { AttentionReport, CaseReport } from './contract.ts'

const panel = { width: 400, height: 320, left: 64, right: 20, top: 56, bottom: 48 }
const legendHeight = 64
const limitName = 'limit'

/** The picture as SVG text. echarts is loaded here only: it is large, and only needed for pictures. */
export async function plotAttention(report: AttentionReport): Promise<string> {
  const echarts = await import('echarts').catch((cause) => {
    throw new KvasirError('not-found', 'bench', 'pictures need the package echarts: npm install echarts', { cause })
  })
  const panels = groupCases(report.cases)
  const columns = Math.min(3, panels.length)
  const rows = Math.ceil(panels.length / columns)
  const size = { width: Math.max(2, columns) * panel.width, height: rows * panel.height + legendHeight }
  const chart = echarts.init(null, null, { renderer: 'svg', ssr: true, ...size })
  const places = panels.map((_, i) => ({
    left: (i % columns) * panel.width + panel.left,
    top: legendHeight + Math.floor(i / columns) * panel.height + panel.top,
    width: panel.width - panel.left - panel.right,
    height: panel.height - panel.top - panel.bottom,
  }))
  chart.setOption({
    animation: false,
    backgroundColor: '#fff',
    legend: { top: 8, itemGap: 24 },
    title: panels.map(({ title }, i) => ({
      ...{ text: title, left: places[i]!.left, top: places[i]!.top - 48, textStyle: { fontSize: 13 } },
    })),
    grid: places,
    xAxis: panels.map(({ cases }, gridIndex) => ({
      ...{ type: 'log' as const, logBase: 2, gridIndex, name: report.phase === 'decode' ? 'S' : 'N' },
      ...{ nameLocation: 'middle' as const, nameGap: 28 },
      ...{ min: Math.min(...cases.map(({ length }) => length)), max: Math.max(...cases.map(({ length }) => length)) },
    })),
    yAxis: panels.map((_, gridIndex) => ({
      ...{ type: 'log' as const, gridIndex, name: report.phase === 'memory' ? 'MiB' : 'ms' },
      min: (range: { min: number }) => 10 ** Math.floor(Math.log10(range.min)),
    })),
    series: panels.flatMap(({ cases }, i) => lines(cases).map((line) => ({ ...line, xAxisIndex: i, yAxisIndex: i }))),
  })
  const svg = chart.renderToSVGString()
  chart.dispose()
  return svg
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
function lines(cases: readonly CaseReport[]) {
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
  return [...points].map(([name, data]) => ({
    ...{ name, type: 'line' as const, data, symbolSize: 5 },
    lineStyle: { width: 2, type: name === limitName || name === 'scores' ? ('dashed' as const) : ('solid' as const) },
  }))
}

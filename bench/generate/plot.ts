/** Draws the times of `kvasir bench generate` as SVG: a panel for each model, ms a token over the context. */
import { KvasirError } from '../../src/tensor/error.ts'
import type { GenerateReport, ModelReport } from './contract.ts'

const panel = { width: 400, height: 320, left: 64, right: 20, top: 56, bottom: 48 }
const legendHeight = 64

/** The picture as SVG text. echarts is loaded here only: it is large, and only needed for pictures. */
export async function plotGenerate({ models }: GenerateReport): Promise<string> {
  const echarts = await import('echarts').catch((cause) => {
    throw new KvasirError('not-found', 'bench', 'pictures need the package echarts: npm install echarts', { cause })
  })
  const columns = Math.min(3, models.length)
  const rows = Math.ceil(models.length / columns)
  const size = { width: Math.max(2, columns) * panel.width, height: rows * panel.height + legendHeight }
  const chart = echarts.init(null, null, { renderer: 'svg', ssr: true, ...size })
  const places = models.map((_, i) => ({
    left: (i % columns) * panel.width + panel.left,
    top: legendHeight + Math.floor(i / columns) * panel.height + panel.top,
    width: panel.width - panel.left - panel.right,
    height: panel.height - panel.top - panel.bottom,
  }))
  chart.setOption({
    animation: false,
    backgroundColor: '#fff',
    legend: { top: 8, itemGap: 24 },
    title: models.map(({ shape, weights }, i) => ({
      ...{ text: `${shape}, ${weights}`, left: places[i]!.left, top: places[i]!.top - 48, textStyle: { fontSize: 13 } },
    })),
    grid: places,
    xAxis: models.map((model, gridIndex) => ({
      ...{ type: 'log' as const, logBase: 2, gridIndex, name: 'context' },
      ...{ nameLocation: 'middle' as const, nameGap: 28, ...rangeOf(model) },
    })),
    yAxis: models.map((_, gridIndex) => ({
      ...{ type: 'log' as const, gridIndex, name: 'ms a token' },
      min: (range: { min: number }) => 10 ** Math.floor(Math.log10(range.min)),
    })),
    series: models.flatMap((model, i) => lines(model).map((line) => ({ ...line, xAxisIndex: i, yAxisIndex: i }))),
  })
  const svg = chart.renderToSVGString()
  chart.dispose()
  return svg
}

function rangeOf(model: ModelReport): { min: number; max: number } {
  const contexts = decodes(model).map(({ tokens }) => tokens)
  return { min: Math.min(...contexts), max: Math.max(...contexts) }
}

/** One line a candidate, named the same in all panels. */
function lines(model: ModelReport) {
  const points = new Map<string, [number, number][]>()
  for (const { tokens, results } of decodes(model)) {
    for (const { candidate, ms } of results) {
      points.set(candidate, [...(points.get(candidate) ?? []), [tokens, ms.median]])
    }
  }
  return [...points].map(([name, data]) => ({
    ...{ name, type: 'line' as const, data: data.sort(([one], [other]) => one - other), symbolSize: 5 },
    lineStyle: { width: 2 },
  }))
}

const decodes = ({ cases }: ModelReport) => cases.filter(({ kind }) => kind === 'decode')

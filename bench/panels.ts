/** Pictures of benches as SVG, log-log unless they say otherwise: panels side by side under one legend. */
import { KvasirError } from '../src/tensor/error.ts'

export interface Line {
  /** Lines of one name have one colour in all panels. */
  readonly name: string
  /** x and y; both above 0 where the axes are logarithmic. */
  readonly data: readonly (readonly [number, number])[]
  readonly isDashed?: boolean
}

export interface Panel {
  readonly title: string
  readonly lines: readonly Line[]
  /** Ends of the x axis. */
  readonly range: { readonly min: number; readonly max: number }
  /** Of the y axis, where it is not that of all panels. */
  readonly y?: string
}

const size = { width: 400, height: 320, left: 64, right: 20, top: 56, bottom: 48 }
/** Of a row of the legend, and names in it. */
const legend = { height: 24, names: 6 }

export interface Axes {
  readonly x: string
  readonly y: string
  /** Both axes, y from 0 to 1. */
  readonly isLinear?: boolean
}

/**
 * The picture as SVG text. echarts is loaded here only: it is large, and only needed for pictures.
 * @throws KvasirError `not-found` without echarts
 */
export async function drawPanels(panels: readonly Panel[], axes: Axes): Promise<string> {
  const echarts = await import('echarts').catch((cause) => {
    throw new KvasirError('not-found', 'bench', 'pictures need the package echarts: npm install echarts', { cause })
  })
  const columns = panels.length === 4 ? 2 : Math.min(3, panels.length)
  const numNames = new Set(panels.flatMap(({ lines }) => lines.map(({ name }) => name))).size
  const legendHeight = Math.max(64, 16 + legend.height * Math.ceil(numNames / legend.names))
  const rows = Math.ceil(panels.length / columns)
  const whole = { width: Math.max(2, columns) * size.width, height: rows * size.height + legendHeight }
  const chart = echarts.init(null, null, { renderer: 'svg', ssr: true, ...whole })
  const places = panels.map((_, i) => ({
    left: (i % columns) * size.width + size.left,
    top: legendHeight + Math.floor(i / columns) * size.height + size.top,
    width: size.width - size.left - size.right,
    height: size.height - size.top - size.bottom,
  }))
  chart.setOption({
    animation: false,
    backgroundColor: '#fff',
    legend: { top: 8, itemGap: 24 },
    title: panels.map(({ title }, i) => ({
      ...{ text: title, left: places[i]!.left, top: places[i]!.top - 48, textStyle: { fontSize: 13 } },
    })),
    grid: places,
    xAxis: panels.map(({ range }, gridIndex) => ({
      ...(axes.isLinear ? { type: 'value' as const } : { type: 'log' as const, logBase: 2 }),
      ...{ gridIndex, name: axes.x },
      ...{ nameLocation: 'middle' as const, nameGap: 28, ...range },
    })),
    yAxis: panels.map(({ y = axes.y }, gridIndex) => ({
      ...{ gridIndex, name: y },
      ...(axes.isLinear
        ? { type: 'value' as const, min: 0, max: 1 }
        : { type: 'log' as const, min: (range: { min: number }) => 10 ** Math.floor(Math.log10(range.min)) }),
    })),
    series: panels.flatMap(({ lines }, i) =>
      lines.map((line) => ({ ...seriesOf(line), xAxisIndex: i, yAxisIndex: i })),
    ),
  })
  const svg = chart.renderToSVGString()
  chart.dispose()
  return svg
}

function seriesOf({ name, data, isDashed }: Line) {
  return {
    ...{ name, type: 'line' as const, data: data.map(([x, y]) => [x, y]), symbolSize: 5 },
    lineStyle: { width: 2, type: isDashed ? ('dashed' as const) : ('solid' as const) },
  }
}

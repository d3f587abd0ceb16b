/** Draws the samples of a memory evaluation as SVG. */
import { KvasirError } from '../src/tensor/error.ts'
import type { MemoryResult } from './memory.ts'

const mebibyte = 2 ** 20

/** The picture as SVG text. echarts is loaded here only: it is large, and only needed for pictures. */
export async function plotMemory({ policy, window, samples }: MemoryResult): Promise<string> {
  const echarts = await import('echarts').catch((cause) => {
    throw new KvasirError('not-found', 'eval', 'pictures need the package echarts: npm install echarts', { cause })
  })
  const chart = echarts.init(null, null, { renderer: 'svg', ssr: true, width: 900, height: 480 })
  const line = (name: string, field: 'kvBytes' | 'fullKvBytes' | 'rssBytes', type: 'solid' | 'dashed') => ({
    name,
    type: 'line' as const,
    symbol: 'none',
    lineStyle: { width: 2, type },
    data: samples.map((sample) => [sample.tokens, sample[field] / mebibyte]),
  })
  const kept = `KV cache (${policy}${window === null ? '' : `, window ${window}`})`
  chart.setOption({
    animation: false,
    backgroundColor: '#fff',
    color: ['#1f77b4', '#888888', '#d62728'],
    grid: { left: 72, right: 32, top: 48, bottom: 56 },
    legend: { top: 8, itemGap: 40 },
    xAxis: { type: 'value', name: 'tokens read', nameLocation: 'middle', nameGap: 32, max: samples.at(-1)?.tokens },
    yAxis: { type: 'log', name: 'MiB', min: (range: { min: number }) => 10 ** Math.floor(Math.log10(range.min / 2)) },
    series: [
      line(kept, 'kvBytes', 'solid'),
      line('KV cache of all tokens', 'fullKvBytes', 'dashed'),
      line('process (RSS)', 'rssBytes', 'solid'),
    ],
  })
  const svg = chart.renderToSVGString()
  chart.dispose()
  return svg
}

/** Draws the times of `kvasir bench generate` as SVG: a panel for each model, ms a token over the context. */
import { drawPanels, type Line } from '../panels.ts'
import type { GenerateReport, ModelReport } from './contract.ts'

/** The picture as SVG text. */
export async function plotGenerate({ models }: GenerateReport): Promise<string> {
  const panels = models.map((model) => ({
    ...{ title: `${model.shape}, ${model.weights}`, lines: lines(model), range: rangeOf(model) },
  }))
  return await drawPanels(panels, { x: 'context', y: 'ms a token' })
}

function rangeOf(model: ModelReport): { min: number; max: number } {
  const contexts = decodes(model).map(({ tokens }) => tokens)
  return { min: Math.min(...contexts), max: Math.max(...contexts) }
}

/** One line a candidate, named the same in all panels. */
function lines(model: ModelReport): Line[] {
  const points = new Map<string, [number, number][]>()
  for (const { tokens, results } of decodes(model)) {
    for (const { candidate, ms } of results) {
      points.set(candidate, [...(points.get(candidate) ?? []), [tokens, ms.median]])
    }
  }
  return [...points].map(([name, data]) => ({ name, data: data.sort(([one], [other]) => one - other) }))
}

const decodes = ({ cases }: ModelReport) => cases.filter(({ kind }) => kind === 'decode')

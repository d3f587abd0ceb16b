/** Draws what `kvasir eval policies` found: recall and error over the share of KV removed. */
import { drawPanels, type Panel } from '../../../bench/panels.ts'
import type { PolicyEvalResult, PolicyRow } from '../../../eval/policies.ts'

const kinds = { static: 'scores that never change', rescoring: 'scores made anew' } as const

/** The picture as SVG text: policies of one kind share a panel. */
export async function plotPolicies({ shares, rows, full }: PolicyEvalResult): Promise<string> {
  const range = { min: Math.min(...shares), max: Math.max(...shares) }
  const panels = (Object.keys(kinds) as (keyof typeof kinds)[]).flatMap((kind): Panel[] => {
    const own = rows.filter((row) => row.kind === kind)
    const names = [...new Set(own.map(({ policy }) => policy))]
    const lines = (value: (row: PolicyRow) => number) =>
      names.map((name) => ({
        name,
        data: own.filter(({ policy }) => policy === name).map((row) => point(row, value(row))),
      }))
    if (names.length === 0) return []
    const agreement = {
      title: `Same likeliest token: ${kinds[kind]}`,
      lines: lines(({ topAgreement }) => topAgreement),
      range,
    }
    const recall = { title: `Answers right: ${kinds[kind]}`, lines: lines((row) => row.recall ?? 0), range }
    return full.recall === null ? [agreement] : [recall, agreement]
  })
  return await drawPanels(panels, { x: 'share of KV removed', y: 'share', isLinear: true })
}

const point = ({ share }: PolicyRow, value: number): [number, number] => [share, value]

/** Draws `kvasir bench cache` as SVG: for each storage type the time of a step and the bytes held, over tokens. */
import { drawPanels, type Line, type Panel } from '../panels.ts'
import type { CacheReport, CacheType, CaseReport, LengthResult } from './contract.ts'

/** The picture as SVG text. */
export async function plotCache({ cases }: CacheReport): Promise<string> {
  const types = [...new Set(cases.map(({ kvDtype }) => kvDtype))]
  const panels = types.flatMap((type) =>
    panelsOf(
      type,
      cases.filter(({ kvDtype }) => kvDtype === type),
    ),
  )
  return await drawPanels(panels, { x: 'tokens so far', y: 'ms a step' })
}

function panelsOf(type: CacheType, cases: readonly CaseReport[]): Panel[] {
  const tokens = cases.flatMap(({ lengths }) => lengths.map((entry) => entry.tokens))
  const range = { min: Math.min(...tokens), max: Math.max(...tokens) }
  const lines = (figure: (entry: LengthResult) => number): Line[] =>
    cases.map(({ policy, lengths }) => ({ name: policy, data: lengths.map((entry) => [entry.tokens, figure(entry)]) }))
  const mebibytes = 2 ** 20
  const [longest] = cases.map(({ lengths }) => lengths).sort((one, other) => other.length - one.length)
  const full: [number, number][] = (longest ?? []).map((entry) => [entry.tokens, entry.fullF32Bytes / mebibytes])
  const all: Line = { name: 'all tokens in f32', data: full, isDashed: true }
  return [
    { title: `${type}: a step, on average`, lines: lines(({ meanMs }) => meanMs.median), range },
    { title: `${type}: the slowest step`, lines: lines(({ worstMs }) => worstMs.median), range },
    { title: `${type}: held`, lines: [...lines(({ bytes }) => bytes / mebibytes), all], range, y: 'MiB' },
  ]
}

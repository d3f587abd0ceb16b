/** Tables of cosines and sines for fused rotation: constant, or chosen by the length of the text. */
import { make } from '../../codec.ts'
import { attributeTypes } from '../../schema.ts'
import { stepLengths } from './steps.ts'
import { PublishedWriter } from './writer.ts'

/** If (total > length) the long tables else the short ones, as initializers of its branches. */
export function longTables(
  w: PublishedWriter,
  { length, factor }: { length: number; factor: number },
): [string, string] {
  const { total } = stepLengths(w)
  const condition = w.node('Greater', [total, w.scalar(length)])
  const branch = (name: string, divisor: number) => {
    const inner = new PublishedWriter(w.settings)
    for (const table of rotaryTables(inner, undefined, divisor))
      inner.output(table, w.float, [w.settings.maxPositions, w.settings.headDim / 2])
    return { name, graph: make('Graph', { name, initializer: inner.tensors, output: inner.outputs }) }
  }
  const branches = [branch('then_branch', factor), branch('else_branch', 1)]
  w.node('If', [condition], ['cos_cache', 'sin_cache'])
  for (const { name, graph } of branches) {
    w.nodes.at(-1)!.attribute.push(make('Attribute', { name, type: attributeTypes.graph, g: graph }))
  }
  return ['cos_cache', 'sin_cache']
}

/** cos_cache and sin_cache `[positions, R]`. */
export function rotaryTables(w: PublishedWriter, rotaryDim = w.settings.headDim, divisor = 1): [string, string] {
  const { maxPositions, theta } = w.settings
  const pairs = rotaryDim / 2
  const angle = (i: number): number => (Math.floor(i / pairs) * theta ** (-(i % pairs) / pairs)) / divisor
  const table = (of: (angle: number) => number): number[] =>
    Array.from({ length: maxPositions * pairs }, (_, i) => of(angle(i)))
  const dims = [maxPositions, pairs]
  return [w.tensor('cos_cache', table(Math.cos), dims), w.tensor('sin_cache', table(Math.sin), dims)]
}

/** Masks as exporters compute them from the lengths of a step and the attention mask. */
import { dataTypes } from '../../schema.ts'
import { stepLengths } from './steps.ts'
import type { PublishedWriter } from './writer.ts'

/** `holes`: every third key is hidden; `chunks`: a query sees its own eight positions; `strange`: no mask at all. */
export type MaskKind = 'causal' | 'alibi' | 'strange' | 'holes' | 'chunks'

/** `[1, 1, S, T]`: query positions and key positions, compared by an operator. */
function positionGrid(w: PublishedWriter): { queries: string; keys: string; total: string } {
  const { fresh, total } = stepLengths(w)
  const keys = w.node('Range', [w.scalar(0), total, w.scalar(1)])
  const past = w.node('Sub', [total, fresh])
  const queries = w.node('Range', [past, total, w.scalar(1)])
  return {
    queries: w.node('Unsqueeze', [queries, w.integers([1])]),
    keys: w.node('Unsqueeze', [keys, w.integers([0])]),
    total,
  }
}

export function booleanMask(w: PublishedWriter, window?: number): string {
  const { queries, keys } = positionGrid(w)
  let visible = w.node('LessOrEqual', [keys, queries])
  if (window !== undefined) {
    const oldest = w.node('Sub', [queries, w.integers([window], [1])])
    visible = w.node('And', [visible, w.node('Greater', [keys, oldest])])
  }
  const padding = w.node('Cast', ['attention_mask'], undefined, { attributes: { to: { int: dataTypes.bool } } })
  const wide = w.node('Unsqueeze', [padding, w.integers([1, 2])])
  return w.node('And', [w.node('Unsqueeze', [visible, w.integers([0, 1])]), wide])
}

/** `[1, 1 or H, S, T]` in the type of activations; what is hidden gets the least number of it. */
export function additiveMask(w: PublishedWriter, kind: MaskKind, window?: number): string {
  const least = w.float === dataTypes.float16 ? -65504 : -3.4028234663852886e38
  const visible = kind === 'holes' || kind === 'chunks' ? oddMask(w, kind) : booleanMask(w, window)
  const mask = w.node('Where', [visible, w.floats([0]), w.floats([least])])
  if (kind === 'causal' || kind === 'holes' || kind === 'chunks') return mask
  const { numHeads } = w.settings
  const { queries, keys } = positionGrid(w)
  const distance = w.node('Cast', [w.node('Sub', [keys, queries])], undefined, { attributes: { to: { int: w.float } } })
  const slopes = Array.from({ length: numHeads }, (_, h) => (kind === 'alibi' ? 2 ** ((-8 * (h + 1)) / numHeads) : 0.3))
  const bias = w.node('Mul', [
    w.floats(slopes, [1, numHeads, 1, 1]),
    w.node('Unsqueeze', [distance, w.integers([0, 1])]),
  ])
  return w.node('Add', [mask, bias])
}

function oddMask(w: PublishedWriter, kind: 'holes' | 'chunks'): string {
  const { queries, keys } = positionGrid(w)
  const chunk = (positions: string): string => w.node('Div', [positions, w.scalar(8)])
  const isSeen =
    kind === 'chunks'
      ? w.node('Equal', [chunk(keys), chunk(queries)])
      : w.node('Not', [w.node('Equal', [w.node('Mod', [keys, w.scalar(3)]), w.scalar(1)])])
  return w.node('And', [booleanMask(w), w.node('Unsqueeze', [isSeen, w.integers([0, 1])])])
}

/** What a runner knows of its graph before the first step. */
import type { AttentionNode, CutModel, GraphEnds } from '../onnx/index.ts'

/** Rows of logits that are computed at once. */
const headRows = 128

/** Attention nodes without keys of their own use the cache of another one. */
export function cacheIndices(attention: readonly AttentionNode[]): number[] {
  const indices: number[] = []
  let count = 0
  for (const { sharesKeyValueWith } of attention) {
    if (sharesKeyValueWith === undefined) indices.push(count++)
    else indices.push(indices[attention.findIndex(({ layer }) => layer === sharesKeyValueWith)]!)
  }
  return indices
}

/** When each value is read last: segment s is point 2 s, attention s is 2 s + 1, the head comes last. */
export function lastUses(cut: CutModel, ends: GraphEnds): Map<string, number> {
  const uses = new Map<string, number>()
  for (const [s, { inputs }] of cut.segments.entries()) for (const name of inputs) raise(uses, name, 2 * s)
  for (const [s, { query, key, value, importance }] of cut.attention.entries()) {
    for (const name of [query, key, value, importance]) if (name) raise(uses, name, 2 * s + 1)
  }
  raise(uses, ends.hidden, 2 * cut.segments.length)
  return uses
}

function raise(uses: Map<string, number>, name: string, point: number): void {
  uses.set(name, Math.max(uses.get(name) ?? -1, point))
}

/** Stretches of consecutive slots, at most `headRows` long. */
export function* runsOf(slots: readonly number[]): Generator<{ start: number; count: number }> {
  for (let start = 0; start < slots.length; ) {
    let count = 1
    while (count < headRows && slots[start + count] === slots[start]! + count) count++
    yield { start, count }
    start += count
  }
}

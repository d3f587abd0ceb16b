/** Drafts for speculative decoding: what followed the last few tokens when they came before. */

/**
 * Up to `count` tokens that followed the most recent earlier place of the longest end of `tokens` (at most `maxNgram`
 * tokens) that occurs twice; empty where none does.
 */
export function findDraft(tokens: readonly number[], maxNgram: number, count: number): number[] {
  const last = tokens.length - 1
  let best = 0
  let after = -1
  for (let end = last - 1; end >= 0 && best < maxNgram; end--) {
    let length = 0
    while (length < maxNgram && length <= end && tokens[end - length] === tokens[last - length]) length++
    if (length <= best) continue
    best = length
    after = end + 1
  }
  return after < 0 ? [] : tokens.slice(after, after + count)
}

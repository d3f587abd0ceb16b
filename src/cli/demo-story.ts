/** Shows a few lines of a generated document, so that a reader sees what the model has to get through. */
import type { Document } from '../../eval/document.ts'
import type { Segment } from '../../training/stories.ts'
import { formatCount, wrapText } from './format.ts'
import type { Terminal } from './terminal.ts'

const openingCharacters = 520
const middleSentences = 3
const indent = '    '

/** The beginning with its facts, some of the middle, and where the facts end. */
export function showStory({ segments, tokens, questions, factTokens }: Document, terminal: Terminal): void {
  const { bold, dim } = terminal.paint
  const opening = segments.slice(0, countOpening(segments))
  const middle = Math.floor(segments.length / 2)
  const text = (part: readonly Segment[]) => wrapText(render(part, terminal).trim(), terminal.width, indent)
  terminal.print(bold(`A story of ${formatCount(tokens.length)} tokens, ${formatCount(segments.length)} sentences:`))
  terminal.print()
  terminal.print(text(opening))
  terminal.print(dim(`${indent}...`))
  terminal.print(text(segments.slice(middle, middle + middleSentences)))
  terminal.print(dim(`${indent}...`))
  terminal.print()
  terminal.print(
    `All ${formatCount(questions.length)} answers stand in its first ${formatCount(factTokens)} tokens. ` +
      `The questions come after the last one.`,
  )
}

function countOpening(segments: readonly Segment[]): number {
  let characters = 0
  const end = segments.findIndex(({ text }) => {
    characters += text.length
    return characters > openingCharacters
  })
  return end < 0 ? segments.length : end + 1
}

/** The text, with the words that a reader must remember set off. */
function render(segments: readonly Segment[], { paint }: Terminal): string {
  return segments
    .map(({ text, valueSpans, statement }) => {
      if (!statement) return text
      let rendered = ''
      let at = 0
      for (const [begin, end] of valueSpans) {
        // Word by word, so that a line break never falls inside an escape sequence.
        const value = text
          .slice(begin, end)
          .split(' ')
          .map((word) => paint.bold(paint.cyan(word)))
        rendered += text.slice(at, begin) + value.join(' ')
        at = end
      }
      return rendered + text.slice(at)
    })
    .join('')
    .replaceAll('\n', ' ')
}

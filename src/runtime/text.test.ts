import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { createDetokenizer } from './detokenizer.ts'
import { createStopMatcher } from './stop-strings.ts'

/** Tokens are bytes. */
const bytes = {
  decode: (tokens: readonly number[]) => new TextDecoder('utf-8', { ignoreBOM: true }).decode(Uint8Array.from(tokens)),
}

/** Like Llama's: tokens are words, the first of a text loses its leading space. */
const words = {
  decode: (tokens: readonly number[]) =>
    tokens
      .map((token) => ` w${token}`)
      .join('')
      .slice(1),
}

function pieces(tokenizer: Pick<typeof bytes, 'decode'>, tokens: Iterable<number>): string[] {
  const detokenizer = createDetokenizer(tokenizer)
  return [...Array.from(tokens, (token) => detokenizer.push(token)), detokenizer.flush()]
}

describe('the detokenizer', () => {
  it('shows a character when its last byte is there', () => {
    expect(pieces(bytes, new TextEncoder().encode('aß😀b'))).toEqual(['a', '', 'ß', '', '', '', '😀', 'b', ''])
  })

  it('gives the whole text, without half characters, for any text', () => {
    fc.assert(
      fc.property(fc.string({ unit: 'binary' }), (text) => {
        const wellFormed = text.replaceAll(/\p{Surrogate}|\ufffd/gu, '?') // no lone surrogates
        const parts = pieces(bytes, new TextEncoder().encode(wellFormed))
        expect(parts.join('')).toBe(wellFormed)
        expect(parts.join(' ')).not.toContain('\ufffd')
      }),
    )
  })

  it('keeps the spaces between words', () => {
    expect(pieces(words, [1, 2, 3])).toEqual(['w1', ' w2', ' w3', ''])
  })

  it('shows bytes that never become a character, at the end or after eight tokens', () => {
    expect(pieces(bytes, [0x61, 0xf0, 0x9f]).join('')).toBe('a\ufffd')
    expect(pieces(bytes, new Array(20).fill(0x80)).join('')).toBe('\ufffd'.repeat(20))
  })
})

describe('stop strings', () => {
  const run = (stops: readonly string[], parts: readonly string[]) => {
    const matcher = createStopMatcher(stops)
    const shown: string[] = []
    for (const part of parts) {
      const { text, stop } = matcher.push(part)
      shown.push(text)
      if (stop !== undefined) return { shown, stopped: true, stop }
    }
    return { shown: [...shown, matcher.flush()], stopped: false, stop: undefined }
  }

  it('are cut off, with what follows them', () => {
    expect(run(['END'], ['one END two'])).toEqual({ shown: ['one '], stopped: true, stop: 'END' })
  })

  it('are never shown in part when they come in pieces', () => {
    expect(run(['END'], ['aE', 'N', 'D!'])).toEqual({ shown: ['a', '', ''], stopped: true, stop: 'END' })
  })

  it('let go of what was held back as soon as it can be no stop string', () => {
    expect(run(['END'], ['aE', 'N', 'x'])).toEqual({ shown: ['a', '', 'ENx', ''], stopped: false })
    expect(run(['END'], ['aEN'])).toEqual({ shown: ['a', 'EN'], stopped: false })
  })

  it('overlap with themselves and with each other', () => {
    expect(run(['aab'], ['a', 'a', 'a', 'b'])).toMatchObject({ shown: ['', '', 'a', ''], stopped: true })
    expect(run(['xyz', 'y'], ['xy'])).toEqual({ shown: ['x'], stopped: true, stop: 'y' })
    expect(run([], ['x', 'y'])).toEqual({ shown: ['x', 'y', ''], stopped: false })
  })

  it('agree with searching the whole text, however it is split', () => {
    const letters = fc.string({ unit: fc.constantFrom('a', 'b'), minLength: 1, maxLength: 4 })
    fc.assert(
      fc.property(fc.array(letters, { maxLength: 3 }), fc.array(letters), (stops, parts) => {
        const whole = parts.join('')
        const { shown, stopped } = run(stops, parts)
        // The first piece that completes a stop string decides; the earliest one in the text so far is cut off.
        const upTo = parts.map((_, i) => parts.slice(0, i + 1).join(''))
        const seen = upTo.find((text) => stops.some((stop) => text.includes(stop)))
        const ends = stops.map((stop) => seen?.indexOf(stop) ?? -1).filter((at) => at >= 0)
        expect(stopped).toBe(seen !== undefined)
        expect(shown.join('')).toBe(seen !== undefined ? seen.slice(0, Math.min(...ends)) : whole)
      }),
      { numRuns: 1000 },
    )
  })
})

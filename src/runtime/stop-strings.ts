/** Finds stop strings in text that comes in pieces, and holds back what may become one. */

export interface StopMatcher {
  /** Adds text; returns what can be shown for certain, and the stop string that was met (its text is cut off). */
  push(text: string): { readonly text: string; readonly stop: string | undefined }
  /** What was held back, when no more text comes. */
  flush(): string
}

export function createStopMatcher(stops: readonly string[]): StopMatcher {
  let held = ''
  return {
    push(text) {
      held += text
      const found = stops.map((stop) => ({ stop, at: held.indexOf(stop) })).filter(({ at }) => at >= 0)
      if (found.length > 0) {
        const first = found.reduce((best, next) => (next.at < best.at ? next : best))
        const shown = held.slice(0, first.at)
        held = ''
        return { text: shown, stop: first.stop }
      }
      const kept = Math.max(0, ...stops.map((stop) => overlap(held, stop)))
      const shown = held.slice(0, held.length - kept)
      held = held.slice(held.length - kept)
      return { text: shown, stop: undefined }
    },
    flush() {
      const rest = held
      held = ''
      return rest
    },
  }
}

/** Length of the longest end of `text` that is a beginning of `stop`. */
function overlap(text: string, stop: string): number {
  for (let length = Math.min(text.length, stop.length - 1); length > 0; length--) {
    if (text.endsWith(stop.slice(0, length))) return length
  }
  return 0
}

/** What reports of several kinds have in common, for tests of what is made of them. */
import { expect } from 'vitest'

/** A report of `kvasir eval recall`. */
export function recallReport(correct, questions = 100) {
  const asked = { policy: 'linear', window: 256, contextTokens: 65_536, questions }
  return { ...asked, correct, recall: correct / questions }
}

/** A median of several measurements, with the lowest and the highest. */
export const spread = (median) => ({ median, low: median / 2, high: 2 * median })

/** A reader can make every figure again. */
export function expectCommands(text, commands) {
  for (const command of commands) expect(text).toContain(`npm start -- ${command}`)
}

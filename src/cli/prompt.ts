/** Where the prompt of a command line comes from: an option, a file or standard input. */
import { KvasirError } from '../tensor/error.ts'
import type { CliContext } from './context.ts'
import { readTextFile } from './text-file.ts'

export interface PromptFlags {
  readonly prompt?: string
  readonly promptFile?: string
}

/**
 * @throws KvasirError `not-found` for a file that can't be read, `invalid-argument` when there is no prompt at all
 */
export async function readPrompt({ stdin }: CliContext, { prompt, promptFile }: PromptFlags): Promise<string> {
  if (prompt !== undefined) return prompt
  if (promptFile !== undefined) {
    return withoutLastBreak(await readTextFile('the prompt file', promptFile))
  }
  if (stdin.isTTY) {
    throw new KvasirError('invalid-argument', 'cli', 'expected a prompt: --prompt, --prompt-file or standard input')
  }
  const decoder = new TextDecoder()
  let text = ''
  for await (const chunk of stdin) text += typeof chunk === 'string' ? chunk : decoder.decode(chunk, { stream: true })
  return withoutLastBreak(text + decoder.decode())
}

/** Editors and `echo` end a text with a line break that nobody meant as part of the prompt. */
function withoutLastBreak(text: string): string {
  return text.replace(/\r?\n$/, '')
}

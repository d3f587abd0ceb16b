/** Where the prompt of a command line comes from: an argument, an option, a file or standard input. */
import { invalidArgument } from '../tensor/error.ts'
import type { CliContext } from './context.ts'
import { readTextFile } from './text-file.ts'

export interface PromptFlags {
  /** The argument without a name. */
  readonly text?: string
  readonly prompt?: string
  readonly promptFile?: string
}

/**
 * @throws KvasirError `not-found` for a file that can't be read, `invalid-argument` when there is no prompt at all or
 * more than one
 */
export async function readPrompt({ stdin }: CliContext, { text, prompt, promptFile }: PromptFlags): Promise<string> {
  if (text !== undefined) {
    const other = prompt !== undefined ? '--prompt' : promptFile !== undefined ? '--prompt-file' : undefined
    if (other !== undefined) throw invalidArgument('cli', `expected one prompt, got an argument and ${other}`)
    return text
  }
  if (prompt !== undefined) return prompt
  if (promptFile !== undefined) {
    return withoutLastBreak(await readTextFile('the prompt file', promptFile))
  }
  if (stdin.isTTY) {
    throw invalidArgument(
      'cli',
      'expected a prompt, as in kvasir generate "Once upon a time", --prompt-file or standard input',
    )
  }
  const decoder = new TextDecoder()
  let read = ''
  for await (const chunk of stdin) read += typeof chunk === 'string' ? chunk : decoder.decode(chunk, { stream: true })
  return withoutLastBreak(read + decoder.decode())
}

/** Editors and `echo` end a text with a line break that nobody meant as part of the prompt. */
function withoutLastBreak(text: string): string {
  return text.replace(/\r?\n$/, '')
}

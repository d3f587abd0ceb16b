/** Lines of standard input as a person or a program gives them. */
import { createInterface } from 'node:readline'
import type { CliContext } from './context.ts'

export interface Lines {
  /** The next line, asked for with `prompt` on a terminal; undefined at the end of the input. */
  next(prompt: string): Promise<string | undefined>
  close(): void
}

/** On a terminal lines can be edited and there is a history; `onInterrupt` gets Ctrl-C. Elsewhere lines are just read. */
export function openLines({ stdin, stdout }: CliContext, onInterrupt: () => void): Lines {
  return stdin.isTTY ? terminalLines(stdin, stdout, onInterrupt) : pipedLines(stdin)
}

function terminalLines(stdin: CliContext['stdin'], stdout: CliContext['stdout'], onInterrupt: () => void): Lines {
  const input = stdin as unknown as NodeJS.ReadableStream
  const reader = createInterface({ input, output: stdout as unknown as NodeJS.WritableStream, terminal: true })
  const lines = reader[Symbol.asyncIterator]()
  reader.on('SIGINT', onInterrupt)
  let isOver = false
  reader.on('close', () => {
    isOver = true
  })
  return {
    async next(prompt) {
      // After Ctrl-D, which may come during an answer, a prompt would wait for a terminal that nobody reads.
      if (!isOver) {
        reader.setPrompt(prompt)
        reader.prompt()
      }
      const { value, done } = await lines.next()
      if (done) stdout.write('\n') // what comes after the program begins a line of its own
      return done ? undefined : value
    },
    close: () => reader.close(),
  }
}

function pipedLines(stdin: CliContext['stdin']): Lines {
  const lines = splitLines(stdin)
  return {
    async next() {
      const { value, done } = await lines.next()
      return done ? undefined : value
    },
    close: () => void lines.return(),
  }
}

async function* splitLines(chunks: AsyncIterable<string | Uint8Array>): AsyncGenerator<string, void, undefined> {
  const decoder = new TextDecoder()
  let rest = ''
  for await (const chunk of chunks) {
    rest += typeof chunk === 'string' ? chunk : decoder.decode(chunk, { stream: true })
    const parts = rest.split(/\r?\n/)
    rest = parts.pop() ?? ''
    yield* parts
  }
  rest += decoder.decode()
  if (rest !== '') yield rest
}

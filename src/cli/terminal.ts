/**
 * Where a command writes. Results go to standard output, everything else (progress, notes, warnings) to standard
 * error. Under --json standard output gets one object and nothing else.
 */
import Table from 'cli-table3'
import colors from 'picocolors'
import { createProgress, type Progress, type ProgressOptions } from './progress.ts'

/** The part of a writable stream that is used; tests give their own. */
export interface Output {
  readonly isTTY?: boolean
  readonly columns?: number
  write(text: string): boolean
}

export interface Terminal {
  readonly isJson: boolean
  /** Colours for standard output; plain when it is no terminal or NO_COLOR is set. */
  readonly paint: ReturnType<typeof colors.createColors>
  /** Columns of standard output, at most 100, for wrapping. */
  readonly width: number
  /** A line of the result; silent under --json. */
  print(line?: string): void
  /** A part of a line of the result; silent under --json. */
  write(text: string): void
  /** Rows under headings; numbers (all but the first `textColumns`) to the right. Silent under --json. */
  table(head: readonly string[], rows: readonly (readonly string[])[], textColumns?: number): void
  /** The one object of --json. */
  json(value: object): void
  /** Something that a person should know and that is no result: to standard error. */
  note(line: string): void
  /** A bar on a terminal, a few plain lines elsewhere: to standard error. */
  progress(options: ProgressOptions): Progress
}

export function createTerminal(
  { stdout, stderr, env }: { stdout: Output; stderr: Output; env: NodeJS.ProcessEnv },
  isJson: boolean,
): Terminal {
  const paint = colors.createColors(hasColor(stdout, env))
  const dim = colors.createColors(hasColor(stderr, env)).dim
  const write = (text: string): void => {
    if (!isJson) stdout.write(text)
  }
  return {
    isJson,
    paint,
    width: Math.min(stdout.columns ?? 100, 100),
    write,
    print: (line = '') => write(`${line}\n`),
    table: (head, rows, textColumns = 1) => write(`${renderTable(head, rows, textColumns, paint.bold)}\n`),
    json: (value) => stdout.write(`${JSON.stringify(value)}\n`),
    note: (line) => stderr.write(`${dim(line)}\n`),
    progress: (options) => createProgress(stderr, options),
  }
}

function hasColor(stream: Output, env: NodeJS.ProcessEnv): boolean {
  if (env.NO_COLOR) return false
  return Boolean(env.FORCE_COLOR) || (stream.isTTY === true && env.TERM !== 'dumb')
}

const rule = '─'

function renderTable(
  head: readonly string[],
  rows: readonly (readonly string[])[],
  textColumns: number,
  bold: (text: string) => string,
): string {
  const none = { top: '', 'top-mid': '', 'top-left': '', 'top-right': '', bottom: '', 'bottom-mid': '' }
  const sides = { 'bottom-left': '', 'bottom-right': '', left: '', right: '', middle: '   ' }
  const table = new Table({
    head: head.map(bold),
    colAligns: head.map((_, index) => (index < textColumns ? 'left' : 'right')),
    chars: { ...none, ...sides, mid: rule, 'left-mid': '', 'right-mid': '', 'mid-mid': rule.repeat(3) },
    style: { head: [], border: [], compact: true, 'padding-left': 0, 'padding-right': 0 },
  })
  table.push(...rows.map((row) => [...row]))
  return table.toString().replace(/ +$/gm, '')
}

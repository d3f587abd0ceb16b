/** Shows how far long work has come: bars that redraw on a terminal, a few plain lines in a log. */
import { MultiBar } from 'cli-progress'
import { formatCount } from './format.ts'
import type { Output } from './terminal.ts'

export interface ProgressOptions {
  /** "Reading" */
  readonly title: string
  readonly total: number
  /** What is counted: "tokens" */
  readonly unit: string
  /** Whether to say how many are done in a second (default true). */
  readonly hasRate?: boolean
}

export interface Progress {
  /** `details` is a second line that lives as long as the bar: memory in use, say. */
  update(done: number, details?: string): void
  /** Removes the bar; what it said last is for the caller to repeat if it matters. */
  end(): void
}

/** What most work on a model is. */
export const readingTokens = { title: 'Reading', unit: 'tokens' }

/** Tells how far work has come; `details` as of `Progress.update`. */
export type Tell = (done: number, total: number, details?: string) => void

/** Runs work beside a bar, which begins with the first that the work tells and ends when the work does, however that is. */
export async function withProgress<T>(
  terminal: { progress(options: ProgressOptions): Progress },
  options: Omit<ProgressOptions, 'total'>,
  work: (tell: Tell) => Promise<T>,
): Promise<T> {
  let progress: Progress | undefined
  try {
    return await work((done, total, details) => {
      progress ??= terminal.progress({ ...options, total })
      progress.update(done, details)
    })
  } finally {
    progress?.end()
  }
}

const plainSteps = 4
const barSize = 32

export function createProgress(stream: Output, options: ProgressOptions): Progress {
  const { update, end } = stream.isTTY ? createBars(stream, options) : createLines(stream, options)
  // Documents end with a sentence, a little after what was asked for.
  return { update: (done, details) => update(Math.min(done, options.total), details), end }
}

function createBars(stream: Output, { title, total, unit, hasRate = true }: ProgressOptions): Progress {
  const rate = createRate(hasRate, '  ')
  const bars = new MultiBar(
    {
      // cli-progress asks for a stream and uses write, isTTY and cursor codes only.
      stream: stream as unknown as NodeJS.WritableStream,
      barCompleteChar: '━',
      barIncompleteChar: '─',
      barsize: Math.max(8, Math.min(barSize, (stream.columns ?? 100) - 64)),
      format: `  ${title}  {bar} {percentage}%  {done} of {all} ${unit}{rate}`,
      hideCursor: true,
      clearOnComplete: true,
      linewrap: false,
      fps: 10,
    },
    undefined,
  )
  const bar = bars.create(total, 0, { done: '0', all: formatCount(total), rate: '' })
  let second: ReturnType<typeof bars.create> | undefined
  return {
    update: (done, details) => {
      bar.update(done, { done: formatCount(done), rate: rate(done) })
      if (details === undefined) return
      second ??= bars.create(1, 0, { details }, { format: '  {details}' })
      second.update(0, { details })
    },
    end: () => bars.stop(),
  }
}

function createLines(stream: Output, { title, total, unit, hasRate = true }: ProgressOptions): Progress {
  const rate = createRate(hasRate, ', ')
  let told = 0
  stream.write(`${title} ${formatCount(total)} ${unit} ...\n`)
  return {
    update: (done, details) => {
      const step = Math.floor((done / Math.max(1, total)) * plainSteps)
      if (step <= told) return
      told = step
      const extra = details === undefined ? '' : `; ${details}`
      stream.write(`${title}: ${formatCount(done)} of ${formatCount(total)} ${unit}${rate(done)}${extra}\n`)
    },
    end: () => {},
  }
}

/**
 * ", 512 a second": how fast things have been done since the first of them was told, for some only know then how many
 * there are and ask for a bar; empty where that means nothing.
 */
function createRate(isWanted: boolean, separator: string): (done: number) => string {
  let first: { readonly done: number; readonly at: number } | undefined
  return (done) => {
    const at = performance.now()
    first ??= { done, at }
    if (!isWanted || done === first.done) return ''
    return `${separator}${formatCount(((done - first.done) * 1000) / Math.max(1, at - first.at))} a second`
  }
}

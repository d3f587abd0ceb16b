/** What the commands of benches share: progress, versions, the picture, and a report for programs or people. */
import { type Command, Option } from 'commander'
import type { CliContext } from '../context.ts'
import { integer, jsonOption, threadsOption } from '../options.ts'
import { checkWritable, writePlot } from '../output-file.ts'
import { packageVersion } from '../package-root.ts'
import { withProgress } from '../progress.ts'
import { createTerminal, type Terminal } from '../terminal.ts'

/** Options of all benches that run in rounds. */
export interface RoundFlags {
  readonly threads?: number
  readonly repeat?: number
  readonly quick?: boolean
  readonly plot?: string
  readonly json?: boolean
}

/** Adds these options, said in the words of a bench. */
export function withRounds(
  command: Command,
  text: { readonly repeat: string; readonly quick: string; readonly plot: string },
): Command {
  return command
    .addOption(threadsOption())
    .addOption(new Option('--repeat <rounds>', text.repeat).argParser(integer(1)))
    .addOption(new Option('--quick', text.quick))
    .addOption(new Option('--plot <file>', text.plot))
    .addOption(jsonOption())
}

interface Report {
  readonly versions: Readonly<Record<string, string>>
}

/** What a bench is told besides its options. */
interface Running {
  readonly signal: AbortSignal
  readonly onProgress: (done: number, total: number, what: string) => void
}

interface BenchRun<R extends Report> {
  readonly measure: (running: Running) => Promise<R>
  /** The picture as SVG text. */
  readonly draw: (report: R) => Promise<string>
  readonly print: (report: R, terminal: Terminal) => void
}

export async function runBench<R extends Report>(
  context: CliContext,
  { json, plot }: { readonly json?: boolean; readonly plot?: string },
  { measure, draw, print }: BenchRun<R>,
): Promise<void> {
  const terminal = createTerminal(context, json === true)
  await checkWritable('--plot', plot)
  const measured = await withProgress(terminal, { title: 'Measuring', unit: 'steps', hasRate: false }, (onProgress) =>
    measure({ signal: context.signal, onProgress }),
  )
  const report = { ...measured, versions: { kvasir: packageVersion(), ...measured.versions } }
  if (terminal.isJson) terminal.json(report)
  else print(report, terminal)
  if (plot !== undefined) await writePlot(terminal, plot, await draw(report))
}

/** `kvasir download`: brings a model of the hub into the cache. */
import { readdir, stat } from 'node:fs/promises'
import { join, relative } from 'node:path'
import { Command } from 'commander'
import type { LoadOptions } from '../../runtime/contract.ts'
import type { CliContext } from '../context.ts'
import { createDownloadBar } from '../download-progress.ts'
import { formatBytes, formatSeconds } from '../format.ts'
import { addOptions, dtypeOption, examples, jsonOption, loadOptions, revisionOption } from '../options.ts'
import { createTerminal, type Terminal } from '../terminal.ts'

interface DownloadFlags extends Pick<LoadOptions, 'dtype' | 'quantize' | 'revision'> {
  readonly json?: boolean
}

export function downloadCommand(context: CliContext): Command {
  const command = new Command('download')
    .description('Download what a model of the Hugging Face hub needs. What is there already is not read again.')
    .argument('<model>', 'id of the model: org/name')
    .addOption(dtypeOption())
    .addOption(revisionOption())
  return addOptions(
    command,
    loadOptions().filter(({ long }) => long === '--quantize'),
  )
    .addOption(jsonOption())
    .addHelpText('after', examples('kvasir download org/name --dtype q4', 'HF_TOKEN=hf_... kvasir download org/gated'))
    .action((model: string, flags: DownloadFlags) => download(context, model, flags))
}

async function download(context: CliContext, model: string, flags: DownloadFlags): Promise<void> {
  const terminal = createTerminal(context, flags.json === true)
  const { downloadModel } = await import('../../runtime/index.ts')
  const { dtype, quantize, revision } = flags
  const bar = createDownloadBar(terminal.progress)
  const started = performance.now()
  try {
    const { onDownload } = bar
    const folder = await downloadModel(model, { dtype, quantize, revision, onDownload, signal: context.signal })
    bar.end()
    report(terminal, model, folder, await listFiles(folder), performance.now() - started)
  } finally {
    bar.end()
  }
}

interface File {
  readonly path: string
  readonly bytes: number
}

async function listFiles(folder: string): Promise<File[]> {
  const entries = await readdir(folder, { recursive: true, withFileTypes: true })
  const files = entries.filter((entry) => !entry.isDirectory()).map((entry) => join(entry.parentPath, entry.name))
  const infos = files.map(async (file) => ({ path: relative(folder, file), bytes: (await stat(file)).size }))
  return (await Promise.all(infos)).sort((a, b) => a.path.localeCompare(b.path))
}

function report(terminal: Terminal, model: string, folder: string, files: readonly File[], milliseconds: number): void {
  const bytes = files.reduce((sum, file) => sum + file.bytes, 0)
  if (terminal.isJson) {
    terminal.json({ model, folder, files, bytes, seconds: milliseconds / 1000 })
    return
  }
  terminal.table(
    ['file', 'size'],
    files.map((file) => [file.path, formatBytes(file.bytes)]),
  )
  terminal.print()
  terminal.print(folder)
  terminal.note(`${formatBytes(bytes)} in ${formatSeconds(milliseconds)}`)
}

/**
 * Measures what the README claims and writes it there: `node tools/results.mjs`, about ten minutes on an idle machine.
 *
 * Every figure comes from a command line of this package with --json; what they printed is kept in docs/results/, and
 * the tables between the two marks of the README are made from that. With `--render` nothing is measured again.
 */
import { execFileSync } from 'node:child_process'
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { cpus, totalmem } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { prepare, root } from './prepare.mjs'
import { renderResults, replaceBetweenMarks } from './render-results.mjs'
import { say } from './steps.mjs'

const folder = join(root, 'docs/results')
const file = join(folder, 'results.json')

/** What is measured. The names are those of the fields of results.json. */
const commands = {
  recall: [
    'eval recall --context 65536 --questions 100 --policy linear',
    'eval recall --context 262144 --questions 100 --policy linear',
    'eval recall --context 65536 --questions 100 --policy window',
  ],
  memory: ['eval memory --tokens 200000 --plot docs/results/memory.svg'],
  decode: ['bench decode --backend native --kv-lengths 2048 32768 --groups 1 4'],
  linear: ['bench linear'],
}

if (process.argv[1] === fileURLToPath(import.meta.url)) process.exitCode = await main(process.argv[2] === '--render')

async function main(isRenderOnly) {
  if (!(await prepare())) return 1
  mkdirSync(folder, { recursive: true })
  if (!isRenderOnly) writeFileSync(file, `${JSON.stringify(measure(), undefined, 2)}\n`)
  const text = renderResults(JSON.parse(readFileSync(file, 'utf8')))
  const readme = join(root, 'README.md')
  writeFileSync(readme, replaceBetweenMarks(readFileSync(readme, 'utf8'), text))
  return 0
}

function measure() {
  const machine = {
    processor: cpus()[0]?.model ?? 'unknown',
    cores: cpus().length,
    memoryGiB: Math.round(totalmem() / 2 ** 30),
    node: process.version,
  }
  const runs = Object.entries(commands).map(([name, lines]) => [
    name,
    lines.map((command) => ({ command: `kvasir ${command}`, result: run(command) })),
  ])
  return { machine, ...Object.fromEntries(runs) }
}

function run(command) {
  say(`kvasir ${command}`)
  const args = ['--import', import.meta.resolve('tsx'), 'src/cli/main.ts', ...command.split(' '), '--json']
  return JSON.parse(execFileSync(process.execPath, args, { cwd: root, stdio: ['ignore', 'pipe', 'inherit'] }))
}

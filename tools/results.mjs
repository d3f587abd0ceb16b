/**
 * Measures what the README, bench/README.md and docs/evaluation.md claim and writes it there: `node tools/results.mjs`,
 * best on an idle machine. With names (`node tools/results.mjs attention`) only that is measured anew, and with
 * `--only=WORDS` only those of its commands that contain the words (`generate --only=smollm2`); with `--render` nothing is.
 * Whole models (`generate`) are measured only when named: they take hours and gigabytes.
 *
 * Every figure comes from a command line of this package with --json; what they printed is kept in docs/results/, and
 * the tables between the two marks of the documents are made from that.
 */
import { execFileSync } from 'node:child_process'
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { cpus, totalmem } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { prepare, root } from './prepare.mjs'
import { renderAttentionInFull } from './render-attention.mjs'
import { renderCache } from './render-cache.mjs'
import { renderEvaluation } from './render-evaluation.mjs'
import { renderGenerate } from './render-generate.mjs'
import { renderResults, replaceBetweenMarks } from './render-results.mjs'
import { say } from './steps.mjs'

const folder = join(root, 'docs/results')
const files = {
  results: join(folder, 'results.json'),
  attention: join(folder, 'attention.json'),
  evaluation: join(folder, 'evaluation.json'),
  cache: join(folder, 'cache.json'),
  generate: join(folder, 'generate.json'),
}

/** What is measured. The names are those of the fields of results.json, but for those that have a file of their own. */
const commands = {
  recall: [
    'eval recall --context 65536 --questions 100 --policy linear',
    'eval recall --context 262144 --questions 100 --policy linear',
    'eval recall --context 65536 --questions 100 --policy window',
  ],
  memory: ['eval memory --tokens 200000 --plot docs/results/memory.svg'],
  linear: ['bench linear'],
  attention: [
    'bench attention --phase decode --kv-dtype f16 --lengths 2048,32768 --plot docs/results/decode.svg',
    'bench attention --phase prefill --kv-dtype f32 --heads 32 --lengths 512,2048 --candidates native,wasm,ort-node-gqa,ort-node-mha,ort-node-attention --plot docs/results/prefill.svg',
    'bench attention --phase prefill --kv-dtype f32 --heads 32 --lengths 256 --candidates native,wasm,ort-web-gqa,ort-web-mha,ort-web-attention --repeat 3',
    'bench attention --phase prefill --kv-dtype f16,bf16 --heads 32 --lengths 512,2048 --candidates native,ort-node-gqa',
    'bench attention --phase prefill --kv-dtype f32 --lengths 16384 --window 1024 --candidates native --repeat 3',
    'bench attention --phase memory --plot docs/results/scratch.svg',
    'bench attention --phase decode --kv-dtype f32 --heads 8,32 --lengths 2048,32768 --threads 1 --candidates native-avx2,wasm',
  ],
  evaluation: [
    'eval policies --questions 10 --shares 0.5,0.875,0.97 --plot docs/results/policies.svg',
    'eval policies --questions 20 --sinks 4 --recent 32 --policies linear:model,linear:learned,linear:value-norm,linear:key-norm,random,window',
    'eval recall --context 65536 --questions 20 --policy linear --importance learned',
    'train-scorer --passages 40 --out models/kvasir-tiny/scorer.safetensors',
    'eval dtypes --questions 20',
  ],
  generate: [
    'bench generate --peers --shape smollm2-135m --weights int8,int4 --plot docs/results/smollm2-135m.svg',
    'bench generate --peers --shape qwen3-0.6b --weights int4 --repeat 1 --plot docs/results/qwen3-0.6b.svg',
  ],
  cache: [
    'bench cache --policies window,streaming,linear --lengths 2048,65536,1048576 --plot docs/results/cache.svg',
    'bench cache --policies h2o,tova,snapkv,keydiff,lagkv,expected-attention --lengths 16384 --repeat 3',
    'bench cache --policies linear --kv-dtype f32,f16,int8 --lengths 16384',
    'bench cache --policies streaming --lengths 4096,32768,262144 --recall 2',
    'bench cache --policies full --kv-dtype f16,int8,fp8-e4m3,int4 --lengths 32768 --heads 8 --kv-heads 8 --head-dim 128',
    'bench cache --policies full --kv-dtype f16,int8,fp8-e4m3,int4 --lengths 32768 --heads 32 --kv-heads 8 --head-dim 128',
  ],
}
const separate = ['attention', 'evaluation', 'cache', 'generate']
const usual = Object.keys(commands).filter((name) => name !== 'generate')

if (process.argv[1] === fileURLToPath(import.meta.url)) process.exitCode = await main(process.argv.slice(2))

async function main(words) {
  const names = words.filter((word) => !word.startsWith('--'))
  const only = words.find((word) => word.startsWith('--only='))?.slice('--only='.length) ?? ''
  const unknown =
    names.find((name) => !Object.hasOwn(commands, name)) ??
    words.find((word) => word.startsWith('--') && word !== '--render' && !word.startsWith('--only='))
  if (unknown !== undefined) {
    say(`expected some of ${Object.keys(commands).join(', ')}, --render or --only=WORDS, got ${unknown}`)
    return 2
  }
  if (only && !names.some((name) => separate.includes(name) && commands[name].some((text) => text.includes(only)))) {
    say(`expected --only with words of a command of ${separate.join(', ')}, got ${only}`)
    return 2
  }
  if (!(await prepare())) return 1
  mkdirSync(folder, { recursive: true })
  if (!words.includes('--render')) measure(names.length > 0 ? names : usual, only)
  render()
  return 0
}

function measure(names, only) {
  const others = names.filter((name) => !separate.includes(name))
  if (others.length > 0) {
    const known = read(files.results, {})
    const machine = describeMachine()
    const isWhole = others.length === Object.keys(commands).length - separate.length
    if (!isWhole && JSON.stringify(known.machine) !== JSON.stringify(machine)) {
      throw new Error(`docs/results/results.json is of another machine: measure all, or only ${separate.join(' and ')}`)
    }
    const runs = Object.fromEntries(others.map((name) => [name, runAll(name)]))
    writeFileSync(files.results, `${JSON.stringify({ ...known, machine, ...runs }, undefined, 2)}\n`)
  }
  for (const name of separate.filter((known) => names.includes(known))) measureSeparately(name, only)
}

/** Kept after each command, since one takes minutes; what is not measured anew stays. */
function measureSeparately(name, only) {
  const wanted = commands[name].map((command) => `kvasir ${command}`)
  const runs = new Map(read(files[name], []).map((known) => [known.command, known]))
  for (const command of commands[name].filter((text) => text.includes(only))) {
    runs.set(`kvasir ${command}`, { command: `kvasir ${command}`, result: run(command) })
    // A line a command: these reports are long, and say themselves what they were made on.
    const lines = wanted.filter((known) => runs.has(known)).map((known) => JSON.stringify(runs.get(known)))
    writeFileSync(files[name], `[\n${lines.join(',\n')}\n]\n`)
  }
}

function render() {
  const attention = read(files.attention, [])
  const generate = read(files.generate, [])
  insert('README.md', renderResults(read(files.results, {}), attention, generate))
  const full = [renderAttentionInFull(attention), renderCache(read(files.cache, [])), renderGenerate(generate)]
  insert('docs/evaluation.md', renderEvaluation(read(files.evaluation, [])))
  insert('bench/README.md', full.filter(Boolean).join('\n\n'))
}

function insert(name, text) {
  const file = join(root, name)
  writeFileSync(file, replaceBetweenMarks(readFileSync(file, 'utf8'), text))
}

function read(file, fallback) {
  return existsSync(file) ? JSON.parse(readFileSync(file, 'utf8')) : fallback
}

function describeMachine() {
  return {
    processor: cpus()[0]?.model ?? 'unknown',
    cores: cpus().length,
    memoryGiB: Math.round(totalmem() / 2 ** 30),
    node: process.version,
  }
}

function runAll(name) {
  return commands[name].map((command) => ({ command: `kvasir ${command}`, result: run(command) }))
}

function run(command) {
  say(`kvasir ${command}`)
  const args = ['--import', import.meta.resolve('tsx'), 'src/cli/main.ts', ...command.split(' '), '--json']
  const output = { stdio: ['ignore', 'pipe', 'inherit'], maxBuffer: 2 ** 28 }
  return JSON.parse(execFileSync(process.execPath, args, { cwd: root, ...output }))
}

/** What all commands have in common: help, wrong usage, failures, interrupts, colours. */
import { tmpdir } from 'node:os'
import { expect, test } from 'vitest'
import { kvasir } from '../../test/fake-run.ts'
import { KvasirError } from '../tensor/error.ts'
import { commands } from './commands/index.ts'

test('--help lists every command, and every command has help with examples', async () => {
  const { code, stdout } = await kvasir(['--help'])
  expect(code).toBe(0)
  for (const name of Object.keys(commands)) {
    expect(stdout).toMatch(new RegExp(`^ {2}${name}\\b`, 'm'))
    const help = await kvasir([name, '--help'])
    expect(help.code, name).toBe(0)
    if (name !== 'eval' && name !== 'bench') expect(help.stdout, name).toMatch(/Examples:\n {2}\$ kvasir /)
  }
})

const wrongUsage: readonly (readonly [args: string, message: RegExp])[] = [
  ['', /Usage: kvasir/],
  ['generat', /unknown command 'generat'[\s\S]*Did you mean generate\?/],
  ['generate --prompt x --wndow 3', /unknown option '--wndow'[\s\S]*Did you mean --window\?/],
  ['generate --prompt x --window 0', /--window <tokens>' argument '0' is invalid. Expected an integer of at least 1/],
  ['generate --prompt x --window -5', /Expected an integer of at least 1/],
  ['generate --prompt x --window 1.5', /Expected an integer/],
  ['generate --prompt x --max-tokens NaN', /argument 'NaN' is invalid. Expected an integer/],
  ['generate --prompt x --temperature -1', /Expected a number of at least 0/],
  ['generate --prompt x --temperature Infinity', /Expected a number of at least 0/],
  ['generate --prompt x --top-p 1.5', /Expected a number above 0 to 1/],
  ['generate --prompt x --top-p 0', /Expected a number above 0 to 1/],
  ['generate --prompt x --seed 4294967296', /Expected an integer from 0 to 4294967295/],
  ['generate --prompt x --policy lru', /argument 'lru' is invalid. Expected one of .*"linear"/],
  ['generate --prompt x --policy adakv(full)', /Expected a policy that has a budget to share, got "adakv\(full\)"/],
  [
    'generate --prompt x --preset chatt',
    /Allowed choices are chat, code, document, realtime \(did you mean "chat"\?\)/,
  ],
  ['generate --prompt x --positions ranks', /Allowed choices are original, rank \(did you mean "rank"\?\)/],
  ['generate --prompt x --backend cuda', /Allowed choices are .*native/],
  ['generate --prompt x --kv-dtype int9', /Allowed choices are f32, f16, .*int4 \(did you mean "int8"\?\)/],
  ['generate --prompt x --kv-dtype-v fp8', /Allowed choices are f32, f16, .*int4/],
  ['generate --prompt x --kv-residual -1', /Expected an integer of at least 0/],
  ['generate x --length-penalty 2', /expected --num-beams of at least 2 with --length-penalty/],
  ['generate x --early-stopping true --num-beams 1', /at least 2 with --early-stopping/],
  ['generate x --logprobs 3', /expected --json with --logprobs/],
  ['generate one two', /too many arguments/],
  ['generate extra --prompt x', /expected one prompt, got an argument and --prompt\n/],
  ['generate extra --prompt-file x', /expected one prompt, got an argument and --prompt-file\n/],
  ['chat a --model b', /expected one model, got the argument a and --model b/],
  ['inspect a --model b', /expected one model, got the argument a and --model b/],
  ['generate --prompt x --prompt-file y', /cannot be used with option/],
  ['generate --prompt x --stream --json', /cannot be used with option/],
  ['generate', /expected a prompt, as in kvasir generate "Once upon a time", --prompt-file or standard input/],
  ['eval', /Usage: kvasir eval/],
  ['bench', /Usage: kvasir bench/],
  ['bench attention --lengths 5,x', /argument '5,x' is invalid. Expected an integer of at least 1/],
  ['bench attention --kv-dtype f16,f46', /Allowed choices are f32, f16, bf16, int8, .* \(did you mean "f16"\?\)/],
  ['bench attention --candidates natve', /\(did you mean "native"\?\)/],
  ['bench attention --phase prefil', /Allowed choices are decode, prefill, memory/],
  ['bench attention --plto x', /unknown option '--plto'[\s\S]*Did you mean --plot\?/],
  ['bench attention --heads 12 --kv-heads 8', /expected heads that are a multiple of the 8 KV heads, got 12/],
  ['bench linear --backend gpu', /Allowed choices are .*wasm/],
  ['eval recall --questions 0', /Expected an integer of at least 1/],
  ['eval memory --tokens 100', /Expected an integer of at least 1024/],
]

test.each(wrongUsage)('wrong usage is exit code 2 and one clear line: kvasir %s', async (args, message) => {
  const { code, stdout, stderr } = await kvasir(args.split(' ').filter(Boolean))
  expect(stderr).toMatch(message)
  expect({ code, stdout }).toEqual({ code: 2, stdout: '' })
})

test('a failure is exit code 1 and one line without a stack, unless KVASIR_DEBUG is set', async () => {
  const failure = new KvasirError('not-found', 'onnx', 'no such model:\n  nowhere')
  const { code, stdout, stderr } = await kvasir(['inspect', 'nowhere', '--json'], { failure })
  expect({ code, stdout, stderr }).toEqual({
    code: 1,
    stdout: '',
    stderr: 'error: no such model: nowhere\n',
  })
  const debug = await kvasir(['inspect', 'nowhere'], { failure, env: { KVASIR_DEBUG: '1' } })
  expect(debug.stderr).toMatch(/\[kvasir:onnx\] no such model[\s\S]*program\.test\.ts/)
})

test('an interrupt ends with exit code 130 and says so', async () => {
  const signal = AbortSignal.abort()
  const { code, stderr, stdout } = await kvasir(['eval', 'recall', '--context', '500', '--json'], { signal })
  expect({ code, stdout }).toEqual({ code: 130, stdout: '' })
  expect(stderr).toBe('Reading 2,500 tokens ...\ninterrupted\n')
})

test('files are asked for before the work: a folder that is not there costs nothing', async () => {
  const args = ['generate x --save-cache', 'eval memory --plot', 'eval policies --plot', 'train-scorer --out']
  const benches = ['attention', 'cache', 'generate', 'prefix'].map((name) => `bench ${name} --plot`)
  for (const words of [...args, ...benches]) {
    const { code, stdout, stderr, loaded } = await kvasir([...words.split(' '), 'no/such/file'])
    const option = words.split(' ').at(-1)
    expect({ code, stdout, loaded }, words).toEqual({ code: 1, stdout: '', loaded: [] })
    expect(stderr).toBe(`error: expected a file for ${option}, got no/such/file: there is no folder no/such\n`)
  }
  const { code, stderr } = await kvasir(['generate', 'x', '--save-cache', tmpdir()])
  expect({ code, stderr }).toEqual({
    code: 1,
    stderr: `error: expected a file for --save-cache, got the folder ${tmpdir()}\n`,
  })
})

test('options of commands that have many stand under headings', async () => {
  const long = (await kvasir(['generate', '--help'])).stdout
  expect(long.match(/^\w.*:$/gm)).toEqual([
    ...['Arguments:', 'Options:', 'The text:', 'The cache:', 'How the model runs:', 'Examples:'],
  ])
  const short = (await kvasir(['inspect', '--help'])).stdout
  expect(short.match(/^\w.*:$/gm)).toEqual(['Arguments:', 'Options:', 'Examples:'])
})

test('colours are for terminals, and NO_COLOR is respected', async () => {
  const args = 'demo --context 700 --questions 2'.split(' ')
  expect((await kvasir(args, { isTerminal: true })).stdout).toContain('\x1b[')
  expect((await kvasir(args, { isTerminal: true, env: { NO_COLOR: '1' } })).stdout).not.toContain('\x1b[')
})

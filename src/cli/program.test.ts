import { expect, test } from 'vitest'
import { createFakeModel, type Respond } from '../../test/fake-model.ts'
import type { LoadOptions } from '../runtime/contract.ts'
import { KvasirError } from '../tensor/error.ts'
import { commands } from './commands/index.ts'
import type { CliContext } from './context.ts'
import { runCli } from './program.ts'

interface Given {
  readonly stdin?: string
  readonly isTerminal?: boolean
  readonly env?: NodeJS.ProcessEnv
  readonly signal?: AbortSignal
  readonly respond?: Respond
  readonly failure?: Error
}

/** A stream that remembers what was written to it. */
function collect(isTTY = false) {
  const parts: string[] = []
  return { isTTY, columns: 100, write: (text: string) => parts.push(text) > 0, text: () => parts.join('') }
}

/** Runs a command line against the fake model. */
async function kvasir(args: readonly string[], given: Given = {}) {
  const stdout = collect(given.isTerminal)
  const stderr = collect()
  const loaded: { path: string; options: LoadOptions }[] = []
  const input = (async function* () {
    yield given.stdin ?? ''
  })()
  const context: CliContext = {
    stdin: Object.assign(input, { isTTY: given.stdin === undefined }),
    stdout,
    stderr,
    env: given.env ?? {},
    signal: given.signal ?? new AbortController().signal,
    loadModel: async (path, options) => {
      if (given.failure) throw given.failure
      loaded.push({ path, options })
      return createFakeModel(given.respond ?? (() => ' And then.'), options)
    },
  }
  const code = await runCli(args, context)
  return { code, stdout: stdout.text(), stderr: stderr.text(), loaded }
}

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

test('generate prints the text on standard output and the figures on standard error', async () => {
  const { code, stdout, stderr, loaded } = await kvasir(['generate', '--prompt', 'Once upon a time'])
  expect({ code, stdout }).toEqual({ code: 0, stdout: ' And then.\n' })
  expect(stderr).toContain('read 4 tokens')
  expect(loaded[0]?.path).toMatch(/models.kvasir-tiny$/)
  expect(loaded[0]?.options).toStrictEqual({})
})

test('generate --json prints one object of the agreed shape', async () => {
  const args = ['generate', '--prompt', 'One two', '--window', '64', '--policy', 'window', '--json', '--model', 'x/y']
  const { code, stdout, loaded } = await kvasir(args)
  expect(code).toBe(0)
  expect(loaded).toEqual([{ path: 'x/y', options: { policy: 'window', window: 64 } }])
  expect(JSON.parse(stdout)).toEqual({
    model: 'x/y',
    policy: 'window',
    window: 64,
    promptTokens: 2,
    reusedTokens: 0,
    generatedTokens: 3,
    text: ' And then.',
    finishReason: 'stop',
    prefillMs: 1,
    decodeMs: 2,
    tokensPerSecond: 1500,
    kv: { bytes: 256, fullBytes: 8, keptTokens: 2, seenTokens: 2 },
  })
})

test('a cache that keeps everything has the window null in JSON', async () => {
  const { stdout } = await kvasir(['generate', '--prompt', 'One two', '--policy', 'full', '--json'])
  expect(JSON.parse(stdout)).toMatchObject({ policy: 'full', window: null })
})

test('the prompt comes from standard input, without its last line break', async () => {
  const prompts: string[] = []
  const respond: Respond = (_, prompt) => {
    prompts.push(prompt)
    return ' x'
  }
  await kvasir(['generate'], { stdin: 'A story.\n\n', respond })
  await kvasir(['generate'], { stdin: 'A story.', respond })
  expect(prompts).toEqual(['A story.\n', 'A story.'])
})

test('streaming prints the same text', async () => {
  const { stdout } = await kvasir(['generate', '--prompt', 'Once', '--stream'])
  expect(stdout).toBe(' And then.\n')
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
  ['generate --prompt x --policy lru', /argument 'lru' is invalid. Allowed choices are .*linear/],
  ['generate --prompt x --backend cuda', /Allowed choices are .*native/],
  ['generate --prompt x --kv-dtype int9', /Allowed choices are f32, f16, .*int4 \(did you mean "int8"\?\)/],
  ['generate --prompt x --kv-dtype-v fp8', /Allowed choices are f32, f16, .*int4/],
  ['generate --prompt x --kv-residual -1', /Expected an integer of at least 0/],
  ['generate --prompt x extra', /too many arguments/],
  ['generate --prompt x --prompt-file y', /cannot be used with option/],
  ['generate --prompt x --stream --json', /cannot be used with option/],
  ['generate', /expected a prompt: --prompt, --prompt-file or standard input/],
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

test('an empty prompt is wrong usage', async () => {
  const { code, stderr } = await kvasir(['generate', '--prompt', ''])
  expect({ code, stderr }).toEqual({
    code: 2,
    stderr: 'error: [kvasir:fake] expected a prompt of at least one token\n',
  })
})

test('a failure is exit code 1 and one line without a stack, unless KVASIR_DEBUG is set', async () => {
  const failure = new KvasirError('not-found', 'onnx', 'no such model:\n  nowhere')
  const { code, stdout, stderr } = await kvasir(['inspect', 'nowhere', '--json'], { failure })
  expect({ code, stdout, stderr }).toEqual({
    code: 1,
    stdout: '',
    stderr: 'error: [kvasir:onnx] no such model: nowhere\n',
  })
  const debug = await kvasir(['inspect', 'nowhere'], { failure, env: { KVASIR_DEBUG: '1' } })
  expect(debug.stderr).toContain('program.test.ts')
})

test('a prompt file that is not there is named', async () => {
  const { code, stderr } = await kvasir(['generate', '--prompt-file', 'no/such/file'])
  expect(code).toBe(1)
  expect(stderr).toContain("can't read the prompt file no/such/file")
})

test('what comes back, from where, and windows that change cross to loadModel', async () => {
  const args = 'generate --prompt x --policy snapkv --window 64 --least-window 8 --keep-mass 0.9 --recall 2'
  const rest = '--recall-bytes 1MiB --kv-tier ram:1MiB --kv-tier disk:kept'
  const { loaded } = await kvasir(`${args} ${rest}`.split(' '))
  expect(loaded[0]?.options).toEqual({
    ...{ policy: 'snapkv', window: 64, leastWindow: 8, keepMass: 0.9, recall: 2, recallBytes: 2 ** 20 },
    recallTiers: [
      { kind: 'ram', maxBytes: 2 ** 20 },
      { kind: 'disk', path: 'kept' },
    ],
  })
})

test('an interrupt ends with exit code 1 and says so', async () => {
  const signal = AbortSignal.abort()
  const { code, stderr, stdout } = await kvasir(['eval', 'recall', '--context', '500', '--json'], { signal })
  expect({ code, stdout }).toEqual({ code: 1, stdout: '' })
  expect(stderr).toBe('Reading 2,500 tokens ...\ninterrupted\n')
})

test('eval recall --json has the agreed fields', async () => {
  const args = 'eval recall --context 600 --questions 3 --per-document 2 --policy window --window 16 --json'
  const { code, stdout } = await kvasir(args.split(' '))
  expect(code).toBe(0)
  expect(JSON.parse(stdout)).toMatchObject({
    contextTokens: 600,
    window: 16,
    policy: 'window',
    questions: 3,
    correct: 0,
    recall: 0,
    kvBytes: 64,
  })
})

test('a full cache has no window unless one is asked for', async () => {
  const args = 'eval recall --context 600 --questions 1 --policy full --json'.split(' ')
  expect((await kvasir(args)).loaded[0]?.options).toEqual({ policy: 'full' })
  expect((await kvasir([...args, '--window', '9'])).loaded[0]?.options).toEqual({ policy: 'full', window: 9 })
})

test('eval recall and eval memory print tables', async () => {
  const recall = await kvasir('eval recall --context 600 --questions 3'.split(' '))
  expect(recall.stdout).toMatch(/asked about +questions +right +recall\n/)
  const memory = await kvasir('eval memory --tokens 3000 --samples 3'.split(' '))
  expect(memory.stdout).toMatch(/1,0\d\d +1\.00 KiB/)
  expect(memory.stdout).toContain('had the same size in all samples')
})

test('inspect shows segments, attention nodes and KV bytes', async () => {
  const { stdout } = await kvasir(['inspect', 'some/model', '--json'])
  expect(JSON.parse(stdout)).toMatchObject({ model: 'some/model', kvBytesPerToken: 4, segments: [{ nodes: 3 }] })
  const text = await kvasir(['inspect'])
  expect(text.stdout).toContain('kvasir-tiny: fake, 12 parameters, 48 B')
  expect(text.stdout).toContain('512 KiB at 131,072 tokens')
  expect(text.stdout).toContain('Weights: 48 B in /fake/model.safetensors')
  expect(text.stdout).toContain('Policy full: nothing else is known')
})

test('demo compares the linear cache with a sliding window', async () => {
  const args = 'demo --context 1500 --questions 4 --window 32'.split(' ')
  const { code, stdout, stderr } = await kvasir(args)
  expect(code).toBe(0)
  expect(stdout).toMatch(/A story of 1,5\d\d tokens/)
  expect(stdout).toMatch(/policy +tokens read +KV cache now +full cache would need +tokens\/s +answers right/)
  expect(stdout).toMatch(/linear +1,5\d\d +128 B +5\.\d+ KiB +[\d,]+ +0 of 4/)
  expect(stdout.match(/✗/g)).toHaveLength(8)
  expect(stdout + stderr).not.toContain('\x1b')
  const json = await kvasir([...args, '--json'])
  const result = JSON.parse(json.stdout)
  expect(result.runs.map(({ policy }: { policy: string }) => policy)).toEqual(['linear', 'window'])
})

test('demo counts what each policy still knows', async () => {
  const respond: Respond = (known, prompt) => {
    const subject = prompt.trim().replace(/^Where is |\?$/g, '')
    const place = known.match(new RegExp(`${subject} (in|on) the ([a-z]+ [a-z]+)\\.`))
    return place ? ` T${subject.slice(1)} is ${place[1]} the ${place[2]}.\n` : ' Nobody knows.\n'
  }
  const args = 'demo --context 1500 --questions 8 --window 32 --json'.split(' ')
  const { runs } = JSON.parse((await kvasir(args, { respond })).stdout)
  expect(runs[0]).toMatchObject({ policy: 'linear', questions: 8, kvBytes: 128 })
  expect(runs[0].correct).toBeGreaterThan(0)
  expect(runs[1]).toMatchObject({ policy: 'window', questions: 8, correct: 0, kvBytes: 128 })
})

test('colours are for terminals, and NO_COLOR is respected', async () => {
  const args = 'demo --context 700 --questions 2'.split(' ')
  expect((await kvasir(args, { isTerminal: true })).stdout).toContain('\x1b[')
  expect((await kvasir(args, { isTerminal: true, env: { NO_COLOR: '1' } })).stdout).not.toContain('\x1b[')
})

/** The program as a process, with the bundled model. What does not need a model is tested beside src/cli/program.ts. */
import { spawn } from 'node:child_process'
import { rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { root } from './documents.ts'

interface Result {
  readonly code: number | null
  readonly stdout: string
  readonly stderr: string
}

const program = ['--import', 'tsx', join(root, 'src/cli/main.ts')]

function kvasir(
  args: string,
  { stdin = '', env = {} }: { stdin?: string; env?: NodeJS.ProcessEnv } = {},
): Promise<Result> {
  return start(args, env, (child) => child.stdin.end(stdin))
}

function start(
  args: string,
  env: NodeJS.ProcessEnv,
  act: (child: ReturnType<typeof spawn> & { stdin: NodeJS.WritableStream }) => void,
): Promise<Result> {
  return new Promise((resolve, reject) => {
    const child = spawn(process.execPath, [...program, ...args.split(' ')], {
      cwd: root,
      env: { ...process.env, ...env },
    })
    const output = { stdout: '', stderr: '' }
    for (const name of ['stdout', 'stderr'] as const) {
      child[name].setEncoding('utf8').on('data', (text: string) => {
        output[name] += text
      })
    }
    child.on('error', reject)
    child.on('close', (code) => resolve({ code, ...output }))
    child.stdin.on('error', () => {}) // wrong usage ends the program before it reads
    act(child)
  })
}

const story = 'Mara put the brass key in the blue drawer.\nWhere is the brass key?'

test('generate continues a prompt from standard input', async () => {
  const { code, stdout, stderr } = await kvasir('generate --max-tokens 5 --json', { stdin: `${story}\n` })
  expect({ code, stderr }).toEqual({ code: 0, stderr: '' })
  const result = JSON.parse(stdout)
  expect(Object.keys(result)).toEqual([
    'model',
    'policy',
    'window',
    'promptTokens',
    'reusedTokens',
    'generatedTokens',
    'text',
    'finishReason',
    'prefillMs',
    'decodeMs',
    'tokensPerSecond',
    'kv',
  ])
  expect(Object.keys(result.kv)).toEqual(['bytes', 'fullBytes', 'keptTokens', 'seenTokens'])
  expect(result).toMatchObject({ model: 'kvasir-tiny', finishReason: 'length', generatedTokens: 5 })
  expect(result.kv.seenTokens).toBeGreaterThanOrEqual(result.promptTokens + 4)
})

test('the bundled model answers a question about what it has read, and stops', async () => {
  const { text, finishReason } = JSON.parse((await kvasir('generate --json', { stdin: story })).stdout)
  expect(text.trim()).toBe('The brass key is in the blue drawer.')
  expect(finishReason).toBe('stop')
})

test('the same text comes from a stream, and from the same seed', async () => {
  const sampled = 'generate --max-tokens 12 --temperature 1 --seed 5'
  const [whole, streamed, again] = await Promise.all(
    [sampled, `${sampled} --stream`, sampled].map((args) => kvasir(args, { stdin: story })),
  )
  expect(whole?.stdout).not.toBe('\n')
  expect(streamed?.stdout).toBe(whole?.stdout)
  expect(again?.stdout).toBe(whole?.stdout)
})

test('the window bounds the cache', async () => {
  const args = 'generate --max-tokens 5 --policy linear --window 16 --json'
  const { kv, window } = JSON.parse((await kvasir(args, { stdin: story })).stdout)
  expect(window).toBe(16)
  expect(kv.keptTokens).toBe(16)
  expect(kv.seenTokens).toBeGreaterThan(16)
  expect(kv.bytes).toBeLessThan(kv.fullBytes)
})

test('an empty prompt is wrong usage, in one line', async () => {
  const { code, stdout, stderr } = await kvasir('generate --json', { stdin: '' })
  expect({ code, stdout }).toEqual({ code: 2, stdout: '' })
  expect(stderr).toMatch(/^error: .+\n$/)
})

test('a model that is not there is a failure, in one line that names it', async () => {
  const { code, stdout, stderr } = await kvasir('inspect no/such/model --json')
  expect({ code, stdout }).toEqual({ code: 1, stdout: '' })
  expect(stderr).toMatch(/^error: .*no\/such\/model.*\n$/)
})

test('inspect shows what the bundled model consists of', async () => {
  const { code, stdout } = await kvasir('inspect --json')
  expect(code).toBe(0)
  const { parameters, segments, attention, kvBytesPerToken } = JSON.parse(stdout)
  expect(parameters).toBeGreaterThan(100_000)
  expect(segments.length).toBeGreaterThan(attention.length)
  expect(kvBytesPerToken).toBeGreaterThan(0)
})

test('chat answers lines of a pipe, each with the turns before', async () => {
  const lines = ['Mara put the brass key in the blue drawer. Where is the brass key?', '/stats', 'And where is Mara?']
  const { code, stdout, stderr } = await kvasir('chat --json', { stdin: `${lines.join('\n')}\n` })
  expect(code).toBe(0)
  expect(stderr).toMatch(/^last turn +read \d+ of \d+ tokens/)
  const { turns, messages } = JSON.parse(stdout)
  expect(turns[0].text.trim()).toBe('The brass key is in the blue drawer.')
  expect(turns[1].reusedTokens).toBeGreaterThan(10)
  expect(messages).toHaveLength(4)
})

test('Ctrl-C stops the answer of a chat and not the program', async () => {
  const args = 'chat --ignore-eos --max-tokens 1000000 --policy full'
  let isStopped = false
  const { code, stdout, stderr } = await start(args, {}, (child) => {
    child.stdin.write('Mara put the key in the drawer.\n')
    child.stdout?.on('data', () => {
      if (isStopped) return
      isStopped = true
      child.kill('SIGINT')
    })
    child.stderr?.on('data', (text: string) => {
      if (text.includes('(stopped)')) child.stdin.end('/stats\n')
    })
  })
  expect(code).toBe(0)
  expect(stderr).toMatch(/\(stopped\)\nlast turn +read \d+ of/)
  expect(stdout.length).toBeGreaterThan(1)
})

test('Ctrl-C ends a chat that waits for a message', async () => {
  const { code } = await start('chat', {}, (child) => {
    child.stdin.write('Hello.\n')
    child.stdout?.once('data', () => {
      // One that comes while the answer is being written stops that; the next one ends the program.
      const timer = setInterval(() => child.kill('SIGINT'), 3000)
      child.once('exit', () => clearInterval(timer))
    })
  })
  expect(code).toBe(130)
})

test('generate takes messages, several texts, beams and drafts', async () => {
  const drafted = await kvasir('generate --json --prompt-lookup 4 --max-tokens 12', { stdin: story })
  const plain = await kvasir('generate --json --max-tokens 12', { stdin: story })
  expect(JSON.parse(drafted.stdout).text).toBe(JSON.parse(plain.stdout).text)
  expect(JSON.parse(drafted.stdout).lookup.drafted).toBeGreaterThanOrEqual(0)
  const args = 'generate --json --chat --n 2 --temperature 1 --seed 3 --logprobs 1 --max-tokens 6 --ignore-eos'
  const { choices } = JSON.parse((await kvasir(args, { stdin: story })).stdout)
  expect(choices.map(({ logprobs }: { logprobs: unknown[] }) => logprobs.length)).toEqual([6, 6])
  const file = join(root, 'build', `schema-${process.pid}.json`)
  writeFileSync(file, '{ "type": "object", "properties": { "n": { "enum": [17] } }, "required": ["n"] }')
  const schema = await kvasir(`generate --json-schema ${file} --temperature 1 --seed 1`, { stdin: story })
  rmSync(file)
  expect(JSON.parse(schema.stdout)).toEqual({ n: 17 })
  const beams = await kvasir('generate --num-beams 3 --n 2 --early-stopping never --max-tokens 8', { stdin: story })
  expect(beams.code).toBe(0)
  expect(beams.stdout.trim().split('\n\n')).toHaveLength(2)
})

test('eval recall counts', async () => {
  const { code, stdout } = await kvasir('eval recall --context 600 --questions 4 --json')
  expect(code).toBe(0)
  const result = JSON.parse(stdout)
  expect(result).toMatchObject({ contextTokens: 600, window: 256, policy: 'linear', questions: 4 })
  expect(result.recall).toBe(result.correct / 4)
})

test('the KV cache is as large after 1,024 tokens as after 8,192', async () => {
  const { code, stdout } = await kvasir('eval memory --tokens 8192 --samples 3 --json')
  expect(code).toBe(0)
  expect(JSON.parse(stdout).isKvConstant).toBe(true)
})

test('a reader that goes away early is no error', async () => {
  const { code, stderr } = await start('generate --help', {}, (child) => {
    child.stdin.end()
    child.stdout?.destroy()
  })
  expect({ code, stderr }).toEqual({ code: 0, stderr: '' })
})

test('SIGTERM stops an answer of chat', async () => {
  const { code, stderr } = await start('chat --ignore-eos --max-tokens 100000', {}, (child) => {
    child.stdin.write('Where is the key?\n') // and stays open
    child.stdout?.once('data', () => child.kill('SIGTERM'))
  })
  expect({ code, stderr: stderr.split('\n').slice(-3) }).toEqual({
    code: 143,
    stderr: ['(stopped)', 'interrupted', ''],
  })
}, 40_000)

test.each([
  ['SIGINT', 130],
  ['SIGTERM', 143],
] as const)('%s, and the same again at once, ends a long read with exit code %i and one line', async (signal, code) => {
  const args = 'eval recall --context 300000 --questions 1 --json'
  const ended = await start(args, {}, (child) => {
    child.stderr?.once('data', () => {
      child.kill(signal) // it says that it begins
      child.kill(signal)
    })
  })
  expect({ ...ended, stderr: ended.stderr.split('\n').slice(-2) }).toEqual({
    code,
    stdout: '',
    stderr: ['interrupted', ''],
  })
})

/** `kvasir generate`: prompts, what is printed, what reaches the model. */
import { expect, test } from 'vitest'
import type { Respond } from '../../test/fake-model.ts'
import { kvasir } from '../../test/fake-run.ts'

test('generate prints the text on standard output and the figures on standard error', async () => {
  const { code, stdout, stderr, loaded } = await kvasir(['generate', '--prompt', 'Once upon a time'])
  expect({ code, stdout }).toEqual({ code: 0, stdout: ' And then.\n' })
  expect(stderr).toContain('read 4 tokens')
  expect(loaded[0]?.path).toMatch(/models.kvasir-tiny$/)
  expect(loaded[0]?.options).toStrictEqual({})
})

test('an interrupt while the prompt is read is not told as a prompt that was read', async () => {
  const { code, stderr } = await kvasir(['generate', 'Once upon a time'], { signal: AbortSignal.abort() })
  expect(code).toBe(130)
  expect(stderr).toMatch(/^stopped reading 4 tokens after .*\ninterrupted\n$/)
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

test('the prompt is an argument, or has its name', async () => {
  const prompts: string[] = []
  const respond: Respond = (_, prompt) => {
    prompts.push(prompt)
    return ' x'
  }
  await kvasir(['generate', 'A story.', '--max-tokens', '3'], { respond })
  await kvasir(['generate', '--max-tokens', '3', '--', '-5 degrees'], { respond })
  await kvasir(['generate', '--prompt', '-5 degrees'], { respond })
  expect(prompts).toEqual(['A story.', '-5 degrees', '-5 degrees'])
})

test('--max-tokens 0 reads and writes nothing', async () => {
  const { code, stdout, stderr } = await kvasir(['generate', 'One two', '--max-tokens', '0'])
  expect({ code, stdout }).toEqual({ code: 0, stdout: '' })
  expect(stderr).toMatch(/^read 2 tokens in [\d.]+ s; KV cache /)
})

test('streaming prints the same text', async () => {
  const { stdout } = await kvasir(['generate', '--prompt', 'Once', '--stream'])
  expect(stdout).toBe(' And then.\n')
})

test('an empty prompt is wrong usage', async () => {
  const { code, stderr } = await kvasir(['generate', '--prompt', ''])
  expect({ code, stderr }).toEqual({
    code: 2,
    stderr: 'error: expected a prompt of at least one token\n',
  })
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

/** `kvasir chat` and its commands, against the fake model; test/cli.test.ts has it as a process with a real one. */
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { createFakeModel, type Respond } from '../../test/fake-model.ts'
import type { LoadOptions } from '../runtime/contract.ts'
import type { CliContext } from './context.ts'
import { runCli } from './program.ts'

let folder = ''
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'kvasir-chat-'))
})
afterEach(() => rm(folder, { recursive: true }))

/** Part of a prompt may be in the cache already: it is all of the text that counts. */
const echo: Respond = (known, prompt) => {
  const turns = `${known}${prompt}`.trim().split('\n')
  return `${turns.length > 1 ? 'again ' : ''}you said ${turns.at(-1)}`
}

/** Types the lines, one after the other, in pieces that split them. */
async function chat(lines: readonly string[], args: readonly string[] = [], respond = echo) {
  const output = { stdout: '', stderr: '' }
  const loaded: LoadOptions[] = []
  const stream = (name: keyof typeof output) => ({
    columns: 100,
    write: (text: string) => {
      output[name] += text
      return true
    },
  })
  const text = lines.map((line) => `${line}\n`).join('')
  const context: CliContext = {
    stdin: (async function* () {
      for (let at = 0; at < text.length; at += 7) yield text.slice(at, at + 7)
    })(),
    stdout: stream('stdout'),
    stderr: stream('stderr'),
    env: {},
    signal: new AbortController().signal,
    loadModel: async (_, options) => {
      loaded.push(options)
      return createFakeModel(respond, options)
    },
  }
  const code = await runCli(['chat', ...args], context)
  return { code, ...output, loaded }
}

describe('kvasir chat', () => {
  it('answers each line, with the turns before, from a thread of its own', async () => {
    const { code, stdout, stderr, loaded } = await chat(['hello', '', 'how are you'])
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' })
    expect(stdout).toBe('you said user: hello\nagain you said user: how are you\n')
    expect(loaded).toEqual([{ worker: true }])
  })

  it('takes a message over several lines, and a system message', async () => {
    const args = ['--system', 'Be brief.', '--max-tokens', '50', '--json']
    const { stdout } = await chat(['one \\', 'two'], args)
    const { messages, turns } = JSON.parse(stdout)
    expect(messages.slice(0, 2)).toEqual([
      { role: 'system', content: 'Be brief.' },
      { role: 'user', content: 'one \ntwo' },
    ])
    expect(turns).toHaveLength(1)
  })

  it('prints one object with --json', async () => {
    const { code, stdout } = await chat(['hello', '/stats', 'bye'], ['--json', '--policy', 'full'])
    expect(code).toBe(0)
    const result = JSON.parse(stdout)
    expect(Object.keys(result)).toEqual(['model', 'policy', 'window', 'turns', 'messages', 'kv'])
    expect(result).toMatchObject({ model: 'kvasir-tiny', policy: 'full', window: null })
    expect(result.turns[1]).toMatchObject({ message: 'bye', finishReason: 'stop' })
    expect(result.turns[1].reusedTokens).toBeGreaterThan(0)
    expect(result.messages).toHaveLength(4)
  })

  it('saves a conversation and goes on with it', async () => {
    const file = join(folder, 'talk.json')
    const saved = await chat(['hello', `/save ${file}`])
    expect(saved.stderr).toContain(`2 messages in ${file}`)
    expect(JSON.parse(await readFile(file, 'utf8'))).toMatchObject({
      kvasir: 'transcript',
      version: 1,
      model: 'kvasir-tiny',
    })
    const { stderr, stdout } = await chat([`/load ${file}`, 'next'], ['--json'])
    expect(stderr).toContain(`2 messages from ${file}`)
    const { messages } = JSON.parse(stdout)
    expect(messages.map(({ role }: { role: string }) => role)).toEqual(['user', 'assistant', 'user', 'assistant'])
    expect(messages[0].content).toBe('hello')
  })

  it('loses nothing to a file that is not there or is something else', async () => {
    await writeFile(join(folder, 'other.json'), '{"messages": []}')
    const lines = [
      'hello',
      '/load no/such/file',
      `/load ${join(folder, 'other.json')}`,
      '/save no/such/folder/x',
      '/save',
    ]
    const { code, stdout, stderr } = await chat(lines, ['--json'])
    expect(code).toBe(0)
    for (const message of [
      "can't read no/such/file",
      'expected what /save writes',
      "can't write no/such/folder/x",
      'expected a file',
    ])
      expect(stderr).toContain(message)
    expect(JSON.parse(stdout).messages).toHaveLength(2)
  })

  it('changes the cache, and keeps the conversation', async () => {
    const lines = ['hello', '/policy window', '/window 5', '/policy widow', '/window none', 'again', '/stats']
    const { stdout, stderr } = await chat(lines, ['--json', '--window', '64'])
    expect(stderr).toContain('policy window, window 64')
    expect(stderr).toContain('policy window, window 5')
    expect(stderr).toContain('did you mean "window"')
    expect(stderr).toMatch(/KV cache +20 B for 5 of \d+ tokens/)
    expect(stderr).toContain('expected a number of tokens after /window, got "none"')
    const { policy, window, turns } = JSON.parse(stdout)
    expect({ policy, window, reused: turns[1].reusedTokens }).toEqual({ policy: 'window', window: 5, reused: 0 })
  })

  it('begins anew, lists its commands, and ends before the input does', async () => {
    const { stdout, stderr } = await chat(
      ['hello', '/reset', 'one', '/help', '/nonsense', '/exit', 'two'],
      ['--json', '--system', 'Hi'],
    )
    const { messages, turns } = JSON.parse(stdout)
    expect(messages.map(({ content }: { content: string }) => content).slice(0, 2)).toEqual(['Hi', 'one'])
    expect(turns).toHaveLength(2)
    for (const name of ['help', 'save', 'load', 'policy', 'window', 'stats', 'reset', 'exit'])
      expect(stderr).toContain(`  /${name}`)
    expect(stderr).toContain('got "nonsense"')
  })

  it('stops the answer at Ctrl-C and goes on', async () => {
    let interrupt: (() => boolean) | undefined
    const handled: unknown[] = []
    const text = 'first\nsecond\n'
    let stdout = ''
    const context: CliContext = {
      stdin: (async function* () {
        yield text
        handled.push(interrupt!()) // nothing is being answered: not ours
      })(),
      stdout: {
        write: (part) => {
          stdout += part
          if (stdout.endsWith('one')) handled.push(interrupt!())
          return true
        },
      },
      stderr: { write: () => true },
      env: {},
      signal: new AbortController().signal,
      onInterrupt: (handler) => {
        interrupt = handler
        return () => {
          interrupt = undefined
        }
      },
      loadModel: async (_, options) => {
        const model = createFakeModel(() => 'one two three', options)
        const stream: typeof model.stream = async function* (prompt, given = {}) {
          for await (const event of model.stream(prompt, given)) {
            if (event.type === 'done')
              yield { ...event, result: { ...event.result, finishReason: given.signal?.aborted ? 'aborted' : 'stop' } }
            else if (!given.signal?.aborted) yield event
          }
        }
        const own = { ...model, stream }
        const { CachedConversation } = await import('../runtime/conversation.ts')
        return { ...own, startConversation: (begin) => new CachedConversation(own, begin) }
      },
    }
    expect(await runCli(['chat'], context)).toBe(0)
    expect(stdout).toBe('one\none\n')
    expect(handled).toEqual([true, true, false])
    expect(interrupt).toBeUndefined()
  })
})

import { mkdir, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { endToken, writeDogeCheckpoint } from '../onnx/testing/doge-checkpoint.ts'
import type { ChatMessage } from './contract.ts'
import { tokenizePrompt } from './prompt.ts'
import { openTokenizer } from './tokenizer.ts'

let folder = ''
beforeEach(async () => {
  folder = (await writeDogeCheckpoint({ layers: 1 })).folder
})
afterEach(() => rm(folder, { recursive: true }))

const write = (name: string, value: unknown): Promise<void> =>
  writeFile(join(folder, name), typeof value === 'string' ? value : JSON.stringify(value))

const messages: ChatMessage[] = [
  { role: 'system', content: 'Be brief.' },
  { role: 'user', content: 'Hi ß' },
]

/** As ChatML models have it. */
const chatml =
  "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}" +
  "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"

const rendered = '<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi ß<|im_end|>\n<|im_start|>assistant\n'

describe('chat templates', () => {
  it('come from tokenizer_config.json, chat_template.json or chat_template.jinja, the last going first', async () => {
    const render = async () => (await openTokenizer(folder, {})).renderChat(messages)
    await write('tokenizer_config.json', { chat_template: chatml })
    expect(await render()).toBe(rendered)
    await write('chat_template.json', { chat_template: 'json' })
    expect(await render()).toBe('json')
    await write('chat_template.jinja', '{{ messages | length }} messages')
    expect(await render()).toBe('2 messages')
  })

  it('see special tokens, tools, arguments, and whether the answer begins', async () => {
    await write('tokenizer_config.json', { bos_token: '<s>', eos_token: { content: '</s>' } })
    await write('special_tokens_map.json', { bos_token: '<bos>' })
    const variables = "[bos_token, eos_token, tools | tojson, enable_thinking, add_generation_prompt] | join(' ')"
    await write('chat_template.jinja', `{{ ${variables} }}`)
    const { renderChat } = await openTokenizer(folder, {})
    const options = {
      tools: [{ name: 'f' }],
      templateArguments: { enable_thinking: false },
      addGenerationPrompt: false,
    }
    expect(renderChat(messages, options)).toBe('<bos> </s> [{"name": "f"}] false false')
    await write('chat_template.jinja', '{% if tools is none %}none{% endif %}{{ add_generation_prompt }}')
    expect((await openTokenizer(folder, {})).renderChat(messages)).toBe('nonetrue')
  })

  it('are chosen by name, or by whether there are tools', async () => {
    const list = ['default', 'tool_use', 'rag'].map((name) => ({ name, template: `is ${name}` }))
    await write('tokenizer_config.json', { chat_template: list })
    await mkdir(join(folder, 'additional_chat_templates'))
    await write('additional_chat_templates/short.jinja', 'is short')
    const { renderChat } = await openTokenizer(folder, {})
    expect(renderChat(messages)).toBe('is default')
    expect(renderChat(messages, { tools: [{}] })).toBe('is tool_use')
    expect(renderChat(messages, { chatTemplate: 'rag', tools: [{}] })).toBe('is rag')
    expect(renderChat(messages, { chatTemplate: 'short' })).toBe('is short')
    expect(() => renderChat(messages, { chatTemplate: 'long' })).toThrow(
      'expected one of "default", "tool_use", "rag", "short" for chatTemplate, got "long"',
    )
  })

  it('make tokens without those that the tokenizer puts around a text, and with those in the text', async () => {
    const definition = JSON.parse(
      await (await import('node:fs/promises')).readFile(join(folder, 'tokenizer.json'), 'utf8'),
    )
    const bos = {
      single: [{ SpecialToken: { id: '<end>', type_id: 0 } }, { Sequence: { id: 'A', type_id: 0 } }],
      pair: [],
    }
    const tokens = { '<end>': { id: '<end>', ids: [endToken], tokens: ['<end>'] } }
    await write('tokenizer.json', {
      ...definition,
      post_processor: { type: 'TemplateProcessing', ...bos, special_tokens: tokens },
    })
    await write('chat_template.jinja', "{{ messages[0]['content'] }}<end>")
    const tokenizer = await openTokenizer(folder, {})
    expect(tokenizer.encode('AB')).toEqual([endToken, 65, 66])
    expect(tokenizePrompt(tokenizer, 'AB')).toEqual([endToken, 65, 66])
    expect(tokenizePrompt(tokenizer, [{ role: 'user', content: 'AB' }])).toEqual([65, 66, endToken])
    expect(tokenizePrompt(tokenizer, [65, 66])).toEqual([65, 66])
    expect(tokenizePrompt(tokenizer, Int32Array.of(65, 66))).toEqual([65, 66])
  })

  it('say what is wrong: none at all, one that is broken, one that refuses', async () => {
    const open = async () => (await openTokenizer(folder, {})).renderChat(messages)
    await expect(open()).rejects.toMatchObject({ code: 'unsupported' })
    await expect(open()).rejects.toThrow('expected a chat template (chat_template.jinja, or chat_template in')
    await write('chat_template.jinja', '{% for message in %}')
    await expect(open()).rejects.toMatchObject({ code: 'invalid-file' })
    await write('chat_template.jinja', "{{ raise_exception('roles must alternate') }}")
    await expect(open()).rejects.toMatchObject({ code: 'invalid-argument' })
    await expect(open()).rejects.toThrow('the chat template refused the conversation: roles must alternate')
  })
})

describe('the bundled model', () => {
  it('has a template that keeps to the text it was trained on', async () => {
    const { renderChat } = await openTokenizer(new URL('../../models/kvasir-tiny', import.meta.url).pathname, {})
    const turns = ['Where is the key?', 'In the drawer.', 'Which?'].map((content, i) => {
      return { role: i % 2 === 0 ? 'user' : 'assistant', content }
    })
    expect(renderChat(turns)).toBe('\nWhere is the key? In the drawer.\nWhich?')
  })
})

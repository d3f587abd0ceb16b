/** Chat templates of a model folder, through @huggingface/jinja. */
import { readdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { Template } from '@huggingface/jinja'
import { invalidArgument, KvasirError } from '../tensor/error.ts'
import type { ChatMessage, ChatOptions } from './contract.ts'
import { type Json, readOptionalJson } from './json-file.ts'

export type RenderChat = (messages: readonly ChatMessage[], options?: ChatOptions) => string

/**
 * Opens the templates of a folder. By precedence: chat_template.jinja (and additional_chat_templates/<name>.jinja),
 * chat_template.json, `chat_template` in tokenizer_config.json, which is a text or a list of named ones.
 * @throws KvasirError `invalid-file` when a file can't be read; a template is parsed when it is first used
 */
export async function openChatTemplates(folder: string, settings: Json): Promise<RenderChat> {
  const sources = new Map<string, string>()
  addTemplates(sources, settings.chat_template)
  addTemplates(sources, (await readOptionalJson(join(folder, 'chat_template.json')))?.chat_template)
  await addFile(sources, 'default', join(folder, 'chat_template.jinja'))
  const more = join(folder, 'additional_chat_templates')
  for (const name of await readdir(more).catch(() => [])) {
    if (name.endsWith('.jinja')) await addFile(sources, name.slice(0, -'.jinja'.length), join(more, name))
  }
  const specialTokens = {
    ...tokensOf(settings),
    ...tokensOf(await readOptionalJson(join(folder, 'special_tokens_map.json'))),
  }
  const parsed = new Map<string, Template>()
  return (messages, options = {}) => {
    const { tools, addGenerationPrompt = true, templateArguments } = options
    const name = chooseTemplate(sources, options)
    const template = parsed.get(name) ?? parse(name, sources.get(name)!)
    parsed.set(name, template)
    return render(template, {
      ...specialTokens,
      documents: null,
      ...templateArguments,
      messages,
      tools: tools ?? null,
      add_generation_prompt: addGenerationPrompt,
    })
  }
}

function chooseTemplate(sources: ReadonlyMap<string, string>, { chatTemplate, tools }: ChatOptions): string {
  const names = [...sources.keys()].map((name) => JSON.stringify(name)).join(', ')
  if (sources.size === 0) {
    const message =
      'expected a chat template (chat_template.jinja, or chat_template in tokenizer_config.json), got none in the ' +
      'model folder: this model continues text; give a text instead of messages'
    throw new KvasirError('unsupported', 'tokenizer', message)
  }
  const wanted = chatTemplate ?? (tools && sources.has('tool_use') ? 'tool_use' : 'default')
  if (sources.has(wanted)) return wanted
  throw invalidArgument('tokenizer', `expected one of ${names} for chatTemplate, got ${JSON.stringify(wanted)}`)
}

function parse(name: string, source: string): Template {
  try {
    return new Template(source)
  } catch (cause) {
    throw new KvasirError('invalid-file', 'tokenizer', `can't parse chat template "${name}": ${String(cause)}`, {
      cause,
    })
  }
}

/** What fails here is what the template says of the conversation: `raise_exception('roles must alternate')`. */
function render(template: Template, values: Record<string, unknown>): string {
  try {
    return template.render(values)
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : String(cause)
    throw new KvasirError('invalid-argument', 'tokenizer', `the chat template refused the conversation: ${reason}`, {
      cause,
    })
  }
}

function addTemplates(sources: Map<string, string>, value: unknown): void {
  if (typeof value === 'string') sources.set('default', value)
  if (!Array.isArray(value)) return
  for (const item of value as { name?: unknown; template?: unknown }[]) {
    if (typeof item?.name === 'string' && typeof item.template === 'string') sources.set(item.name, item.template)
  }
}

async function addFile(sources: Map<string, string>, name: string, file: string): Promise<void> {
  const text = await readFile(file, 'utf8').catch((cause: NodeJS.ErrnoException) => {
    if (cause.code === 'ENOENT') return undefined
    throw new KvasirError('invalid-file', 'tokenizer', `${file}: ${cause.message}`, { cause })
  })
  if (text !== undefined) sources.set(name, text)
}

/** `bos_token`, `eos_token` and the like, each a text or an object with the text as `content`. */
function tokensOf(settings: Json | undefined): Record<string, string> {
  return Object.fromEntries(
    Object.entries(settings ?? {}).flatMap(([key, value]): [string, string][] => {
      const content = typeof value === 'object' && value !== null ? (value as { content?: unknown }).content : value
      return key.endsWith('_token') && typeof content === 'string' ? [[key, content]] : []
    }),
  )
}

/** What can be typed instead of a message in `kvasir chat`: one entry a command. */
import type { PolicyChoice } from '../cache/contract.ts'
import { policyNames, readPolicy } from '../policies/index.ts'
import type { CausalLM, Conversation, ConversationOptions, TurnResult } from '../runtime/contract.ts'
import { checkChoice, describe } from '../tensor/check.ts'
import { invalidArgument, isKvasirError } from '../tensor/error.ts'
import { statsText } from './chat-stats.ts'
import { formatBytes, formatCount, formatPlural } from './format.ts'
import { loadTranscript, saveTranscript } from './transcript.ts'

/** What the commands of one chat work on. */
export interface ChatState {
  readonly model: CausalLM
  readonly name: string
  conversation: Conversation
  /** How the conversation was begun; a change of cache begins another with its messages. */
  options: ConversationOptions
  last: TurnResult | undefined
  isOver: boolean
}

interface ChatCommand {
  readonly argument?: string
  readonly help: string
  /** Returns what is to be told. */
  readonly run: (state: ChatState, argument: string) => string | Promise<string>
}

const commands = {
  help: { help: 'this list', run: () => helpText() },
  save: {
    argument: '<file>',
    help: 'write the conversation to a file, its cache beside it',
    async run({ name, conversation }, file) {
      await saveTranscript(need(file, 'a file'), name, conversation.messages)
      const cache = await saveCache(conversation, cacheFile(file))
      return `${formatPlural(conversation.messages.length, 'message')} in ${file}${cache}`
    },
  },
  load: {
    argument: '<file>',
    help: 'go on with a conversation from a file',
    async run({ conversation, name }, file) {
      const { messages, model } = await loadTranscript(need(file, 'a file'))
      const cache = await restoreCache(conversation, cacheFile(file))
      conversation.messages = messages
      const other = model === name ? '' : ` (it was held with ${model})`
      return `${formatPlural(messages.length, 'message')} from ${file}${other}${cache}`
    },
  },
  policy: {
    argument: '<name>',
    help: `which tokens stay: ${policyNames.join(', ')}`,
    run(state, policy) {
      readPolicy(need(policy, 'a policy')) // throws for one that is none
      return changeCache(state, { policy: policy as PolicyChoice })
    },
  },
  window: {
    argument: '<tokens>',
    help: 'tokens kept for each KV head',
    run(state, tokens) {
      const window = Number(need(tokens, 'a number of tokens'))
      if (!(Number.isInteger(window) && window > 0)) {
        throw invalidArgument('cli', `expected a number of tokens after /window, got ${describe(tokens)}`)
      }
      return changeCache(state, { window })
    },
  },
  stats: {
    help: 'the last turn; what the cache keeps, has lost and got back',
    async run({ conversation, last, model, options }) {
      const report = await conversation.explainCache()
      const cache = { ...model.cacheOptions, ...options.cache }
      return statsText({ last, options: cache, report, prefixes: await model.prefixStats() })
    },
  },
  reset: {
    help: 'begin anew',
    run({ conversation, options }) {
      conversation.messages = options.system === undefined ? [] : [{ role: 'system', content: options.system }]
      return 'a new conversation'
    },
  },
  exit: {
    help: 'end (also Ctrl-D)',
    run(state) {
      state.isOver = true
      return ''
    },
  },
} as const satisfies Record<string, ChatCommand>

/** Whether a line is a command and not a message. */
export function isCommand(line: string): boolean {
  return /^\/[a-z]/.test(line)
}

/** @throws KvasirError `invalid-argument` for an unknown command or a wrong argument; nothing has changed then */
export async function runCommand(state: ChatState, line: string): Promise<string> {
  const [, name = '', argument = ''] = /^\/(\S+)\s*(.*)$/.exec(line.trim()) ?? []
  checkChoice('cli', 'a command', name, Object.keys(commands))
  return await (commands[name as keyof typeof commands] as ChatCommand).run(state, argument.trim())
}

function helpText(): string {
  const lines = Object.entries<ChatCommand>(commands).map(([name, { argument = '', help }]) => {
    return `  ${`/${name} ${argument}`.padEnd(18)} ${help}`
  })
  return [...lines, '  A line that ends with \\ goes on in the next.'].join('\n')
}

function cacheFile(transcript: string): string {
  return `${transcript}.cache`
}

/** The transcript is what counts: without the cache it is read again. */
async function saveCache(conversation: Conversation, file: string): Promise<string> {
  try {
    const { bytes } = await conversation.save(file)
    return `, the cache in ${file} (${formatBytes(bytes)})`
  } catch (error) {
    if (!isKvasirError(error)) throw error
    return ` without its cache: ${error.message}`
  }
}

async function restoreCache(conversation: Conversation, file: string): Promise<string> {
  try {
    await conversation.restore(file)
    return `; the cache holds ${formatPlural(conversation.getCacheInfo().seenTokens, 'token')}`
  } catch (error) {
    if (!isKvasirError(error)) throw error
    return `; it will be read again${error.code === 'not-found' ? '' : `: ${error.message}`}`
  }
}

/** A cache can't change its policy: the messages are read again by another one. */
function changeCache(state: ChatState, change: NonNullable<ConversationOptions['cache']>): string {
  const { messages } = state.conversation
  const options = { ...state.options, cache: { ...state.options.cache, ...change } }
  const { system: _, ...rest } = options
  const conversation = state.model.startConversation({ ...rest, messages })
  state.conversation.dispose()
  state.conversation = conversation
  state.options = options
  const { policy, window } = { ...state.model.cacheOptions, ...options.cache }
  return `policy ${policy}${window === undefined ? '' : `, window ${formatCount(window)}`}`
}

function need(argument: string, what: string): string {
  if (argument !== '') return argument
  throw invalidArgument('cli', `expected ${what} after the command, got nothing`)
}

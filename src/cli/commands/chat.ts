/** `kvasir chat`: a conversation, a line at a time; each turn reads only what the cache does not hold. */
import { Command, Option } from 'commander'
import type { TurnResult } from '../../runtime/contract.ts'
import { isKvasirError, KvasirError, reasonOf } from '../../tensor/error.ts'
import { type ChatState, isCommand, runCommand } from '../chat-commands.ts'
import type { CliContext } from '../context.ts'
import { type Lines, openLines } from '../lines.ts'
import { type ModelFlags, modelName, modelOf, withModel } from '../model.ts'
import { examples, jsonOption, loadOptions, modelOption, policyOption, windowOption } from '../options.ts'
import { type SamplingFlags, samplingOptions, toSampling } from '../sampling-options.ts'
import { createTerminal, type Terminal } from '../terminal.ts'

interface ChatFlags extends ModelFlags, SamplingFlags {
  readonly system?: string
  readonly json?: boolean
}

export function chatCommand(context: CliContext): Command {
  const command = new Command('chat')
    .description('Talk with a model. /help lists what can be typed besides messages; Ctrl-C stops an answer.')
    .argument('[model]', 'the same as --model')
    .addOption(modelOption())
    .addOption(new Option('--system <text>', 'what the model is told first'))
  for (const option of [...samplingOptions(), policyOption(), windowOption(), ...loadOptions()])
    command.addOption(option)
  return command
    .addOption(jsonOption())
    .addHelpText(
      'after',
      examples(
        'kvasir chat',
        'kvasir chat org/name --dtype q4 --policy window --window 4096',
        'printf "Mara put the key in the drawer. Where is the key?\\n/stats\\n" | kvasir chat',
      ),
    )
    .action((model: string | undefined, flags: ChatFlags) => chat(context, { ...flags, ...modelOf(model, flags) }))
}

async function chat(context: CliContext, flags: ChatFlags): Promise<void> {
  const terminal = createTerminal(context, flags.json === true)
  // In a thread of its own, so that Ctrl-C and the keyboard are served while it works.
  const threaded: CliContext = {
    ...context,
    loadModel: (path, options) => context.loadModel(path, { ...options, worker: true }),
  }
  await withModel(threaded, flags, async (model) => {
    model.tokenizer.renderChat([{ role: 'user', content: 'Hello' }]) // says at once when there is no chat template
    const system = flags.system === undefined ? {} : { system: flags.system }
    const options = { ...(await toSampling(flags, model.tokenizer)), ...system }
    const conversation = model.startConversation(options)
    const state: ChatState = { model, name: modelName(flags), conversation, options, last: undefined, isOver: false }
    const turns = await talk(context, terminal, state)
    if (terminal.isJson) terminal.json(toJson(state, turns))
    state.conversation.dispose()
    if (context.signal.aborted) throw new KvasirError('aborted', 'cli', 'interrupted')
  })
}

interface Turn extends TurnResult {
  readonly message: string
}

async function talk(context: CliContext, terminal: Terminal, state: ChatState): Promise<Turn[]> {
  const turns: Turn[] = []
  let answer: AbortController | undefined
  /** Stops the answer; where there is none, ends the program. */
  const interrupt = (): boolean => {
    answer?.abort()
    return answer !== undefined
  }
  const lines = openLines(context, () => interrupt() || lines.close())
  const giveBack = context.onInterrupt?.(interrupt)
  try {
    if (context.stdin.isTTY) terminal.note(`${state.name}; /help lists the commands`)
    while (!state.isOver && !context.signal.aborted) {
      const line = await nextMessage(lines)
      if (line === undefined) break
      if (line.trim() === '') continue
      answer = new AbortController()
      const signal = AbortSignal.any([answer.signal, context.signal])
      const result = await act(terminal, state, line, signal)
      answer = undefined
      if (result) turns.push({ ...result, message: line })
    }
  } finally {
    giveBack?.()
    lines.close()
  }
  return turns
}

/** A line, and those after it while they end with a backslash. */
async function nextMessage(lines: Lines): Promise<string | undefined> {
  let message = await lines.next('> ')
  while (message?.endsWith('\\')) message = `${message.slice(0, -1)}\n${(await lines.next('. ')) ?? ''}`
  return message
}

/** A command or a turn. What goes wrong is told, and the conversation goes on as it was. */
async function act(
  terminal: Terminal,
  state: ChatState,
  line: string,
  signal: AbortSignal,
): Promise<TurnResult | undefined> {
  try {
    if (isCommand(line)) {
      const told = await runCommand(state, line)
      if (told !== '') terminal.note(told)
      return undefined
    }
    const result = await answerTo(terminal, state, line, signal)
    state.last = result
    return result
  } catch (error) {
    if (!isKvasirError(error) || error.code === 'internal') throw error
    terminal.note(`error: ${reasonOf(error)}`)
    return undefined
  }
}

async function answerTo(terminal: Terminal, state: ChatState, line: string, signal: AbortSignal): Promise<TurnResult> {
  let hasBegun = false
  for await (const event of state.conversation.stream(line, { signal })) {
    if (event.type === 'done') {
      terminal.print()
      if (event.result.finishReason === 'aborted') terminal.note('(stopped)')
      return event.result
    }
    // Models whose template ends with the question begin their answer with a space or a line break.
    terminal.write(hasBegun ? event.text : event.text.trimStart())
    hasBegun ||= event.text.trim() !== ''
  }
  throw new Error('unreachable: a stream ends with "done"')
}

function toJson({ name, model, options, conversation }: ChatState, turns: readonly Turn[]): object {
  const { policy, window } = { ...model.cacheOptions, ...options.cache }
  const { bytes, fullBytes, keptTokens, seenTokens } = conversation.getCacheInfo()
  return {
    model: name,
    policy,
    window: window ?? null,
    turns: turns.map((turn) => {
      const { message, text, finishReason, promptTokens, reusedTokens, generatedTokens, prefillMs, decodeMs } = turn
      return { message, text, finishReason, promptTokens, reusedTokens, generatedTokens, prefillMs, decodeMs }
    }),
    messages: conversation.messages,
    kv: { bytes, fullBytes, keptTokens, seenTokens },
  }
}

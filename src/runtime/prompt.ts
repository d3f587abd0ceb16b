/** The tokens of a prompt: of a text, of tokens as they are, or of the turns of a conversation. */
import { checkKeys, describe } from '../tensor/check.ts'
import { invalidArgument } from '../tensor/error.ts'
import type { ChatMessage, ChatOptions, Prompt, TextTokenizer } from './contract.ts'

export const chatKeys = ['tools', 'chatTemplate', 'addGenerationPrompt', 'templateArguments'] as const

/**
 * @throws KvasirError `invalid-argument` for something else than a prompt, `unsupported` for a conversation with a
 * model that has no chat template, `invalid-file` for a template that fails
 */
export function tokenizePrompt(
  tokenizer: Pick<TextTokenizer, 'encode' | 'renderChat'>,
  prompt: Prompt,
  options: ChatOptions = {},
): number[] {
  checkKeys('tokenizer', 'a chat template', options, chatKeys)
  if (typeof prompt === 'string') return tokenizer.encode(prompt)
  if (prompt instanceof Int32Array) return [...prompt]
  if (!Array.isArray(prompt)) {
    throw invalidArgument('tokenizer', `expected a text, tokens or messages as prompt, got ${describe(prompt)}`)
  }
  if (!isConversation(prompt)) return [...(prompt as readonly number[])]
  // What templates write begins with whatever the model wants at the beginning.
  return tokenizer.encode(tokenizer.renderChat(prompt, options), { addSpecialTokens: false })
}

function isConversation(prompt: readonly unknown[]): prompt is readonly ChatMessage[] {
  if (typeof prompt[0] !== 'object' || prompt[0] === null) return false
  for (const [index, message] of prompt.entries()) {
    const role = typeof message === 'object' && message !== null ? (message as { role?: unknown }).role : undefined
    if (typeof role === 'string') continue
    throw invalidArgument('tokenizer', `expected messages with a role, got ${describe(message)} at index ${index}`)
  }
  return true
}

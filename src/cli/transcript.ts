/** A conversation as a file: what `/save` writes and `/load` reads. */
import { readFile, writeFile } from 'node:fs/promises'
import type { ChatMessage } from '../runtime/contract.ts'
import { describe } from '../tensor/check.ts'
import { KvasirError } from '../tensor/error.ts'

interface Transcript {
  readonly kvasir: 'transcript'
  readonly version: 1
  readonly model: string
  readonly messages: readonly ChatMessage[]
}

export async function saveTranscript(file: string, model: string, messages: readonly ChatMessage[]): Promise<void> {
  const transcript: Transcript = { kvasir: 'transcript', version: 1, model, messages }
  await writeFile(file, `${JSON.stringify(transcript, undefined, 2)}\n`).catch((cause: Error) => {
    throw new KvasirError('invalid-argument', 'cli', `can't write ${file}: ${cause.message}`, { cause })
  })
}

/** @throws KvasirError `not-found` when there is no such file, `invalid-file` when it is no transcript */
export async function loadTranscript(file: string): Promise<Transcript> {
  const text = await readFile(file, 'utf8').catch((cause: Error) => {
    throw new KvasirError('not-found', 'cli', `can't read ${file}: ${cause.message}`, { cause })
  })
  const value = parse(text)
  const { kvasir, version, model, messages } = (value ?? {}) as Partial<Record<keyof Transcript, unknown>>
  if (kvasir !== 'transcript' || version !== 1 || typeof model !== 'string' || !isMessages(messages)) {
    throw new KvasirError('invalid-file', 'cli', `${file}: expected what /save writes, got ${describe(value)}`)
  }
  return { kvasir, version, model, messages }
}

function parse(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return text
  }
}

function isMessages(value: unknown): value is readonly ChatMessage[] {
  const isMessage = (item: unknown) => typeof (item as { role?: unknown } | null)?.role === 'string'
  return Array.isArray(value) && value.every(isMessage)
}

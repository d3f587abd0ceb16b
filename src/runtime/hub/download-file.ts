/**
 * One file into the cache: continued where an earlier try ended, tried again when the connection breaks, and checked by
 * size and hash before it gets its name. `@huggingface/hub` begins anew each time and checks nothing
 * (docs/decisions/0030-hub-downloads.md).
 */
import { createHash } from 'node:crypto'
import { createReadStream, createWriteStream } from 'node:fs'
import { rename, rm, stat } from 'node:fs/promises'
import { dirname } from 'node:path'
import { Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import type { ReadableStream } from 'node:stream/web'
import { setTimeout as wait } from 'node:timers/promises'
import { KvasirError } from '../../tensor/error.ts'
import { makeFolder } from '../../tensor/make-folder.ts'
import { HubStatusError, isPassing } from './hub-error.ts'
import { claimPartial, freePartial } from './partial-file.ts'

export interface FileSource {
  readonly url: string
  readonly token: string | undefined
  readonly size: number
  /** SHA-256 of the content for large files, git's object id (SHA-1) for others, as the hub lists it. */
  readonly hash: { readonly kind: 'sha256' | 'git'; readonly hex: string }
  readonly signal?: AbortSignal | undefined
  /** Called with the bytes that are there. */
  readonly onBytes: (bytes: number) => void
}

/** Tries in a row that bring nothing. */
const maxTries = 5
const firstWaitMs = 250

/**
 * Downloads to `target`. What an interrupted download left is continued (`partial-file.ts`).
 * @throws KvasirError `invalid-file` when the content is not what the hub says it is; what `fetch` throws
 */
export async function downloadFile(target: string, source: FileSource): Promise<void> {
  await makeFolder(dirname(target))
  const partial = await claimPartial(target)
  try {
    await complete(partial, source)
    await checkHash(partial, source)
    await rename(partial, target)
  } catch (error) {
    await freePartial(target, partial)
    throw error
  }
}

async function complete(partial: string, source: FileSource): Promise<void> {
  for (let tries = 0; (await sizeOf(partial)) !== source.size; ) {
    const before = await sizeOf(partial)
    try {
      await transfer(partial, before > source.size ? 0 : before, source)
      if ((await sizeOf(partial)) < source.size) throw new Error('the connection ended before the file did')
    } catch (error) {
      tries = (await sizeOf(partial)) > before ? 1 : tries + 1
      if (source.signal?.aborted || tries >= maxTries || !isPassing(error)) throw error
      const asked = error instanceof HubStatusError ? error.retryAfterMs : undefined
      await wait(asked ?? firstWaitMs * 2 ** (tries - 1), undefined, { signal: source.signal })
    }
  }
}

/** Appends to `partial` from byte `start` on, or begins anew when the server gives the whole file. */
async function transfer(
  partial: string,
  start: number,
  { url, token, size, signal, onBytes }: FileSource,
): Promise<void> {
  const response = await fetch(url, {
    headers: { ...(token && { authorization: `Bearer ${token}` }), ...(start > 0 && { range: `bytes=${start}-` }) },
    signal: signal ?? null,
  })
  if (response.status === 416) {
    await rm(partial, { force: true })
    throw new Error('the server has no such part of the file')
  }
  if (!response.ok || !response.body) throw new HubStatusError(response)
  const isContinued = response.status === 206 && rangeStart(response) === start
  if (response.status === 206 && !isContinued) throw new Error('the server sent another part of the file')
  let bytes = isContinued ? start : 0
  onBytes(bytes)
  const body = Readable.fromWeb(response.body as ReadableStream)
  const count = async function* (chunks: AsyncIterable<Uint8Array>) {
    for await (const chunk of chunks) {
      bytes += chunk.length
      if (bytes > size) throw new KvasirError('invalid-file', 'hub', `expected ${size} bytes from ${url}, got more`)
      yield chunk
      onBytes(bytes)
    }
  }
  await pipeline(body, count, createWriteStream(partial, { flags: isContinued ? 'a' : 'w' }))
}

function rangeStart(response: Response): number {
  return Number(/^bytes (\d+)-/.exec(response.headers.get('content-range') ?? '')?.[1] ?? Number.NaN)
}

/** A file that is not what it should be is of no use for another try: it goes. */
async function checkHash(partial: string, { hash, size, url }: FileSource): Promise<void> {
  const digest = createHash(hash.kind === 'sha256' ? 'sha256' : 'sha1')
  if (hash.kind === 'git') digest.update(`blob ${size}\0`)
  for await (const chunk of createReadStream(partial)) digest.update(chunk as Buffer)
  const got = digest.digest('hex')
  if (got === hash.hex) return
  await rm(partial, { force: true })
  const message = `expected ${hash.kind === 'sha256' ? 'SHA-256' : 'git id'} ${hash.hex} of ${url}, got ${got}`
  throw new KvasirError('invalid-file', 'hub', `${message}; what was downloaded is deleted`)
}

async function sizeOf(file: string): Promise<number> {
  return (await stat(file).catch(() => undefined))?.size ?? 0
}

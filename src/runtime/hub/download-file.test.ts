/** Who writes to which file while several download the same. */
import { createHash } from 'node:crypto'
import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { createServer, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, it } from 'vitest'
import { downloadFile, type FileSource } from './download-file.ts'

const content = Buffer.from(Uint8Array.from({ length: 300_000 }, (_, i) => (i * 37) >> 4))
const hash = { kind: 'sha256' as const, hex: createHash('sha256').update(content).digest('hex') }
const ranges: (string | undefined)[] = []
/** What is done with an answer whose head is sent: the rest of the content, from `start` on, is the test's to send. */
let send: (response: ServerResponse, start: number) => void
const server = createServer((request, response) => {
  const { range } = request.headers
  ranges.push(range)
  const start = Number(/^bytes=(\d+)-$/.exec(range ?? '')?.[1] ?? 0)
  response.writeHead(start > 0 ? 206 : 200, { 'content-range': `bytes ${start}-299999/300000` })
  send(response, start)
})
let [folder, target] = ['', '']
let source: FileSource
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'kvasir-file-'))
  target = join(folder, 'blob')
  ranges.length = 0
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}/`
  source = { url, token: undefined, size: content.length, hash, onBytes: () => {} }
})
afterEach(async () => {
  server.closeAllConnections()
  await new Promise((resolve) => server.close(resolve))
  await rm(folder, { recursive: true })
})

it('two that download one file at once do not write into each other', async () => {
  let first: ServerResponse | undefined
  let second: Promise<void> | undefined
  send = (response, start) => {
    if (!first) {
      first = response
      response.write(content.subarray(0, 100_000)) // and the rest when the other one is at work
    } else {
      response.write(content.subarray(start, 200_000))
      first.end(content.subarray(100_000))
      first.on('close', () => setTimeout(() => response.end(content.subarray(200_000)), 50))
    }
  }
  const onBytes = (bytes: number): void => {
    if (bytes === 100_000) second ??= downloadFile(target, source)
  }
  await downloadFile(target, { ...source, onBytes })
  await second
  expect(content.equals(await readFile(target))).toBe(true)
  expect(await readdir(folder)).toEqual(['blob'])
  expect(ranges).toEqual([undefined, undefined])
})

it('what a process left that is gone is gone on with, what one is at is left to it', async () => {
  send = (response, start) => response.end(content.subarray(start))
  const [gone, running] = [`${target}.999999999.x.incomplete`, `${target}.${process.pid}.x.incomplete`]
  await writeFile(gone, content.subarray(0, 1000))
  await writeFile(running, content.subarray(0, 2000))
  await downloadFile(target, source)
  expect(ranges).toEqual(['bytes=1000-'])
  expect(content.equals(await readFile(target))).toBe(true)
  expect((await readdir(folder)).sort()).toEqual(['blob', `blob.${process.pid}.x.incomplete`])
})

it('what is left after an error is free for anyone', async () => {
  send = (response) => {
    response.write(content.subarray(0, 5000))
  }
  const abort = new AbortController()
  const onBytes = (bytes: number): void => {
    if (bytes > 0) abort.abort()
  }
  await expect(downloadFile(target, { ...source, signal: abort.signal, onBytes })).rejects.toThrow()
  expect(await readdir(folder)).toEqual(['blob.incomplete'])
})

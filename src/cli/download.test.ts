/** `kvasir download` from a server that speaks the hub's API. */
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, it, vi } from 'vitest'
import { type HubServer, startHub } from '../runtime/hub/testing/hub-server.ts'
import { createDownloadBar } from './download-progress.ts'
import { runCaptured } from './testing/captured.ts'

const commit = 'c'.repeat(40)
let home = ''
let server: HubServer
beforeEach(async () => {
  home = await mkdtemp(join(tmpdir(), 'kvasir-download-'))
  const files = {
    'config.json': Buffer.from('{}'),
    'tokenizer.json': Buffer.from('{}'),
    'onnx/model_q4.onnx': Buffer.alloc(3_000_000, 7),
    'onnx/model.onnx': Buffer.alloc(10),
  }
  server = await startHub({ model: 'org/name', commit, files, large: ['onnx/model_q4.onnx'] })
  for (const name of ['HF_HUB_CACHE', 'HF_TOKEN', 'HF_HUB_OFFLINE', 'HF_HOME']) vi.stubEnv(name, '')
  vi.stubEnv('KVASIR_CACHE', home)
  vi.stubEnv('HF_ENDPOINT', server.endpoint)
})
afterEach(async () => {
  vi.unstubAllEnvs()
  await server.close()
  await rm(home, { recursive: true })
})

const kvasir = (args: string) => runCaptured(args.split(' '))

it('brings one variant, says where it is, and shows how far it is', async () => {
  const { code, stdout, stderr } = await kvasir('download org/name --dtype q4 --json')
  expect(code).toBe(0)
  const { model, folder, files, bytes } = JSON.parse(stdout)
  expect({ model, folder }).toEqual({
    model: 'org/name',
    folder: join(home, 'hub/models--org--name/snapshots', commit),
  })
  expect(files).toEqual([
    { path: 'config.json', bytes: 2 },
    { path: 'onnx/model_q4.onnx', bytes: 3_000_000 },
    { path: 'tokenizer.json', bytes: 2 },
  ])
  expect(bytes).toBe(3_000_004)
  expect(stderr).toMatch(/Downloading 4 MB/)
  const again = await kvasir('download org/name --dtype q4')
  expect(again.stdout).toContain('onnx/model_q4.onnx')
  expect(again.stderr).not.toContain('Downloading')
})

it('fails in one line', async () => {
  for (const args of ['download org/other', 'download org/name --dtype fp16', 'download org/name --revision v9']) {
    const { code, stdout, stderr } = await kvasir(args)
    expect({ code, stdout }).toEqual({ code: 1, stdout: '' })
    expect(stderr).toMatch(/error: .+\n$/)
  }
  expect((await kvasir('download name')).code).toBe(2)
  expect((await kvasir('download org/name --dtype q5')).code).toBe(2)
})

it('a bar begins when something is read, and again when more turns out to be needed', () => {
  const told: string[] = []
  const bar = createDownloadBar(({ total }) => {
    told.push(`start ${total}`)
    return { update: (done) => told.push(`${done}`), end: () => told.push('end') }
  })
  const at = (file: string, fileBytes: number, fileSize: number, bytes: number, size: number) =>
    bar.onDownload({ file, fileBytes, fileSize, bytes, size })
  at('config.json', 5, 5, 5, 5)
  at('b', 1e6, 9e6, 1e6, 9e6)
  at('b', 9e6, 9e6, 9e6, 9e6)
  at('c', 1e6, 2e6, 10e6, 11e6)
  bar.end()
  bar.end()
  expect(told).toEqual(['start 9', '1', '9', 'end', 'start 11', '10', 'end'])
})

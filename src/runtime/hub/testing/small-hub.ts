/** A hub with one small model for each test of a file, and a home of its own: nothing outside is read or written. */
import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, vi } from 'vitest'
import { type HubServer, type HubServerOptions, startHub } from './hub-server.ts'

export const commit = '0123456789abcdef0123456789abcdef01234567'
export const model = 'someone/small-model'
export const weights = Buffer.from(Uint8Array.from({ length: 200_000 }, (_, i) => (i * 31) >> 3))
export const files = {
  'config.json': Buffer.from('{"model_type": "doge"}'),
  'tokenizer.json': Buffer.from('{}'),
  'README.md': Buffer.from('not wanted'),
  'model.safetensors': weights,
  'onnx/model_q4.onnx': Buffer.from('graph'),
  'onnx/model_q4.onnx_data': Buffer.from('data'),
}

/** To be called once in a file of tests. */
export function useHub() {
  let home = ''
  let server: HubServer | undefined
  beforeEach(async () => {
    home = await mkdtemp(join(tmpdir(), 'kvasir-hub-'))
    for (const name of ['KVASIR_CACHE', 'HF_HUB_CACHE', 'HF_TOKEN', 'HF_HUB_OFFLINE']) vi.stubEnv(name, '')
    vi.stubEnv('HF_HOME', home)
  })
  afterEach(async () => {
    vi.unstubAllEnvs()
    await server?.close()
    server = undefined
    await rm(home, { recursive: true })
  })
  return {
    home: () => home,
    /** What downloads of the model go to. */
    folder: () => join(home, 'hub', 'models--someone--small-model'),
    async start(options: Partial<HubServerOptions> = {}): Promise<HubServer> {
      server = await startHub({ model, commit, files, large: ['model.safetensors'], ...options })
      vi.stubEnv('HF_ENDPOINT', server.endpoint)
      return server
    },
    stop: async () => await server?.close(),
  }
}

/** Compared at once: a matcher would go through it byte by byte. */
export async function isWhole(path: string): Promise<boolean> {
  return weights.equals(await readFile(join(path, 'model.safetensors')))
}

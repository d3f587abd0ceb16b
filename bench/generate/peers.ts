/**
 * node-llama-cpp, which only this bench wants: 85 MB that are no dependency of Kvasir. Installed on demand, by the lock
 * file of bench/peers, into the cache folder. Its compiled library comes in the package; nothing else is downloaded.
 */
import { execFile } from 'node:child_process'
import { copyFile, rename, rm, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath, pathToFileURL } from 'node:url'
import { promisify } from 'node:util'
import { cacheFolder } from '../../src/runtime/quantized-cache.ts'
import { KvasirError } from '../../src/tensor/error.ts'
import { makeFolder } from '../../src/tensor/make-folder.ts'

const source = fileURLToPath(new URL('../peers', import.meta.url))
const place = (): string => join(cacheFolder(), 'bench', 'peers')
const entry = (folder: string): string => join(folder, 'node_modules/node-llama-cpp/dist/index.js')

export interface Peer {
  /** What to import. */
  readonly url: string
  readonly packageFile: string
}

/** Where node-llama-cpp is; undefined where it is not installed. */
export async function findPeer(): Promise<Peer | undefined> {
  const file = entry(place())
  const isThere = await stat(file).catch(() => undefined)
  return isThere && { url: pathToFileURL(file).href, packageFile: join(file, '../../package.json') }
}

/** @throws KvasirError `unreachable` when npm can't install it here */
export async function installPeer(signal?: AbortSignal): Promise<void> {
  const temporary = `${place()}.installing`
  await rm(temporary, { recursive: true, force: true })
  await makeFolder(temporary)
  try {
    for (const name of ['package.json', 'package-lock.json']) await copyFile(join(source, name), join(temporary, name))
    // Without optional packages: those are builds for graphics cards, some hundred megabytes each. (`npm ci` refuses a
    // lock file in which packages of other platforms are missing.)
    const args = ['install', '--omit=optional', '--ignore-scripts', '--no-audit', '--no-fund']
    await promisify(execFile)('npm', args, {
      cwd: temporary,
      shell: process.platform === 'win32',
      ...(signal && { signal }),
    })
    await rm(place(), { recursive: true, force: true })
    await rename(temporary, place())
  } catch (cause) {
    await rm(temporary, { recursive: true, force: true })
    if (signal?.aborted) throw new KvasirError('aborted', 'bench', 'interrupted', { cause })
    const reason = lineOf(cause as Error & { stderr?: string })
    throw new KvasirError('unreachable', 'bench', `npm can't install node-llama-cpp: ${reason}`, { cause })
  }
}

/** What npm complains of first; it warns of much besides. */
function lineOf({ stderr = '', message }: Error & { stderr?: string }): string {
  return stderr.split('\n').find((line) => /^npm error (?!code)/.test(line)) ?? message.split('\n')[0] ?? ''
}

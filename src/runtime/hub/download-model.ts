/**
 * A model of the hub as a folder on disk, in the cache layout of the Hugging Face tools, which share it:
 * `models--org--name/blobs/<hash>`, `snapshots/<commit>/<path>` as links to them, `refs/<revision>` with the commit.
 */
import { copyFile, lstat, readdir, readFile, rm, stat, symlink } from 'node:fs/promises'
import { dirname, join, relative, sep } from 'node:path'
import { type ListFileEntry, listFiles, modelInfo } from '@huggingface/hub'
import { invalidArgument, KvasirError } from '../../tensor/error.ts'
import { makeFolder } from '../../tensor/make-folder.ts'
import type { DownloadProgress } from '../contract.ts'
import { writeWhole } from '../file-digest.ts'
import { chooseFiles, type FileChoice } from './choose-files.ts'
import { downloadFile } from './download-file.ts'
import { explainHubError, isUnreachable } from './hub-error.ts'
import { type HubSettings, hubSettings } from './settings.ts'

export interface DownloadOptions extends Omit<FileChoice, 'config'> {
  /** Branch, tag or commit (default `main`). */
  readonly revision?: string | undefined
  readonly signal?: AbortSignal | undefined
  readonly onDownload?: ((progress: DownloadProgress) => void) | undefined
}

/** Whether a text can name a model of the hub. */
export function isModelId(text: string): boolean {
  return /^[A-Za-z0-9][\w.-]*\/[A-Za-z0-9][\w.-]*$/.test(text) && !text.includes('..')
}

/**
 * The folder of a model, whose missing files are downloaded first. Offline, or when the hub can't be reached, it is what
 * earlier downloads left.
 * @throws KvasirError `not-found`, `denied` (401, 403), `unreachable`, `invalid-file` (size or hash), `aborted`
 */
export async function downloadModel(model: string, options: DownloadOptions = {}): Promise<string> {
  if (!isModelId(model))
    throw invalidArgument('hub', `expected a model id such as "org/name", got ${JSON.stringify(model)}`)
  const settings = hubSettings()
  const folder = join(settings.folder, `models--${model.replace('/', '--')}`)
  const revision = options.revision ?? 'main'
  if (!isSafe(revision))
    throw invalidArgument('hub', `expected a branch, tag or commit, got ${JSON.stringify(revision)}`)
  const repository: Repository = { model, folder, revision, settings }
  if (settings.isOffline) return await cachedModel(repository, options)
  try {
    return await updateModel(repository, options)
  } catch (error) {
    const cached = isUnreachable(error) ? await cachedModel(repository, options).catch(() => undefined) : undefined
    if (cached !== undefined) return cached
    throw explainHubError(error, model, settings.token !== undefined)
  }
}

interface Repository {
  readonly model: string
  readonly folder: string
  readonly revision: string
  readonly settings: HubSettings
}

async function updateModel(repository: Repository, options: DownloadOptions): Promise<string> {
  const { model, folder, revision, settings } = repository
  const access = { hubUrl: settings.endpoint, ...(settings.token && { accessToken: settings.token }) }
  const { sha: commit } = await modelInfo({ name: model, revision, additionalFields: ['sha'], ...access })
  const entries = new Map<string, ListFileEntry>()
  for await (const entry of listFiles({ repo: model, revision: commit, recursive: true, ...access })) {
    if (entry.type === 'file') entries.set(entry.path, entry)
  }
  const snapshot = join(folder, 'snapshots', commit)
  const progress = new Map<string, number>()
  const fetchFile = async (path: string, paths: readonly string[]): Promise<void> => {
    const onBytes = (bytes: number): void => {
      progress.set(path, bytes)
      const sum = (of: (path: string) => number) => paths.reduce((total, each) => total + of(each), 0)
      const size = (each: string): number => entries.get(each)?.size ?? 0
      const whole = { bytes: sum((each) => progress.get(each) ?? 0), size: sum(size) }
      options.onDownload?.({ file: path, fileBytes: bytes, fileSize: size(path), ...whole })
    }
    await fetchEntry(repository, commit, entries.get(path)!, { signal: options.signal, onBytes })
  }
  const first = 'config.json'
  if (entries.has(first)) await fetchFile(first, [first])
  const config = entries.has(first) ? await readConfig(snapshot) : {}
  const paths = chooseFiles(model, [...entries.keys()], { ...options, config })
  for (const path of paths) await fetchFile(path, paths)
  await writeWhole(join(folder, 'refs', revision), commit)
  return snapshot
}

/** A blob, and the link to it under its name. */
async function fetchEntry(
  { model, folder, settings }: Repository,
  commit: string,
  entry: ListFileEntry,
  { signal, onBytes }: { signal: AbortSignal | undefined; onBytes: (bytes: number) => void },
): Promise<void> {
  const { path, size, oid = '', lfs } = entry
  const hash = lfs ? { kind: 'sha256' as const, hex: lfs.oid } : { kind: 'git' as const, hex: oid }
  if (!isSafe(path) || !/^[0-9a-f]{40,64}$/.test(hash.hex)) {
    throw new KvasirError(
      'invalid-file',
      'hub',
      `expected the name and hash of a file in ${model}, got ${JSON.stringify(path)}`,
    )
  }
  const blob = join(folder, 'blobs', hash.hex)
  const url = `${settings.endpoint}/${model}/resolve/${commit}/${path.split('/').map(encodeURIComponent).join('/')}`
  const there = await stat(blob).catch(() => undefined)
  if (there?.size !== size) await downloadOnce(blob, { url, token: settings.token, size, hash, signal, onBytes })
  onBytes(size)
  await link(blob, join(folder, 'snapshots', commit, path))
}

/** Two loads of one model at once share a download. */
const running = new Map<string, Promise<void>>()

async function downloadOnce(blob: string, source: Parameters<typeof downloadFile>[1]): Promise<void> {
  const download = running.get(blob) ?? downloadFile(blob, source).finally(() => running.delete(blob))
  running.set(blob, download)
  await download
}

/** Where links are not allowed (Windows), the file is copied. */
async function link(blob: string, name: string): Promise<void> {
  if (await stat(name).catch(() => undefined)) return
  await makeFolder(dirname(name))
  if (await lstat(name).catch(() => undefined)) await rm(name) // a link to nothing
  await symlink(relative(dirname(name), blob), name).catch(async (error: NodeJS.ErrnoException) => {
    if (error.code === 'EEXIST') return
    await copyFile(blob, name)
  })
}

/** What is in the cache, when it is enough. */
async function cachedModel({ model, folder, revision }: Repository, options: DownloadOptions): Promise<string> {
  const commit = await readFile(join(folder, 'refs', revision), 'utf8').catch(() => revision)
  const snapshot = join(folder, 'snapshots', commit.trim())
  const names = await readdir(snapshot, { recursive: true }).catch(() => [])
  if (names.length === 0) {
    const message = `expected ${model} (${revision}) in ${folder}, got nothing, and HF_HUB_OFFLINE forbids to download it`
    throw new KvasirError('not-found', 'hub', message)
  }
  const paths = names.map((name) => name.split(sep).join('/'))
  chooseFiles(model, paths, { ...options, config: paths.includes('config.json') ? await readConfig(snapshot) : {} })
  return snapshot
}

async function readConfig(snapshot: string): Promise<Readonly<Record<string, unknown>>> {
  const file = join(snapshot, 'config.json')
  try {
    return JSON.parse(await readFile(file, 'utf8')) as Record<string, unknown>
  } catch (cause) {
    throw new KvasirError('invalid-file', 'hub', `${file}: expected JSON, got something else`, { cause })
  }
}

/** No name leads out of the folder of the model. */
function isSafe(path: string): boolean {
  return (
    path !== '' && !/^[/\\]|^[A-Za-z]:|\\/.test(path) && !path.split('/').some((part) => part === '..' || part === '')
  )
}

/** A server that speaks the part of the hub's API that downloads use, with the failures of a network at command. */
import { createHash } from 'node:crypto'
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'

export interface HubServer {
  readonly endpoint: string
  /** Path and range of each request for content, and whether it carried a token. */
  readonly requests: {
    readonly path: string
    readonly range: string | undefined
    readonly authorization: string | undefined
  }[]
  /** The next answers about these paths (keys: path in the repository, or `api`): broken off after so many bytes ... */
  readonly breaks: Map<string, number[]>
  /** ... or this status. */
  readonly statuses: Map<string, number[]>
  close(): Promise<void>
}

export interface HubServerOptions {
  readonly model: string
  readonly files: Readonly<Record<string, Buffer>>
  readonly commit: string
  /** Without it: 401. */
  readonly token?: string
  /** Files that are stored apart, as large ones are: listed with SHA-256 and redirected to another origin. */
  readonly large?: readonly string[]
  /** Changes what is listed. */
  readonly list?: (entry: Record<string, unknown>) => Record<string, unknown>
  readonly hasRanges?: boolean
}

export async function startHub(options: HubServerOptions): Promise<HubServer> {
  const requests: { path: string; range: string | undefined; authorization: string | undefined }[] = []
  const breaks = new Map<string, number[]>()
  const statuses = new Map<string, number[]>()
  const common = { options, requests, breaks, statuses }
  const storage = createServer((request, response) => answerContent({ ...common, isStorage: true }, request, response))
  const storageUrl = await listen(storage)
  const hub = createServer((request, response) => answer({ ...common, storageUrl }, request, response))
  const endpoint = await listen(hub)
  return { endpoint, requests, breaks, statuses, close: async () => void (await Promise.all([hub, storage].map(stop))) }
}

interface Context extends Pick<HubServer, 'requests' | 'breaks' | 'statuses'> {
  readonly options: HubServerOptions
  readonly storageUrl?: string
  readonly isStorage?: boolean
}

function answer(context: Context, request: IncomingMessage, response: ServerResponse): unknown {
  const { options, statuses } = context
  const { pathname, searchParams } = new URL(request.url ?? '/', 'http://hub')
  const isDenied = options.token !== undefined && request.headers.authorization !== `Bearer ${options.token}`
  const status = pathname.startsWith('/api/') ? statuses.get('api')?.shift() : undefined
  if (status !== undefined) return json(response, status, { error: 'told to fail' })
  if (isDenied) return json(response, 401, { error: 'Invalid username or password.' })
  if (!pathname.includes(`/${options.model}/`)) return json(response, 404, { error: 'Repository not found' })
  if (pathname.includes('/revision/')) {
    if (!['main', 'v2', options.commit].some((name) => pathname.endsWith(`/${name}`))) {
      return json(response, 404, { error: 'Invalid rev id' })
    }
    const about = { _id: '1', id: options.model, private: false, downloads: 0, gated: false, likes: 0 }
    return json(response, 200, { ...about, lastModified: '2026-01-01T00:00:00.000Z', sha: options.commit })
  }
  if (pathname.includes('/tree/')) return list(context, response, request, Number(searchParams.get('cursor') ?? 0))
  return answerContent(context, request, response)
}

/** Two entries a page. */
function list({ options }: Context, response: ServerResponse, request: IncomingMessage, cursor: number): unknown {
  const { files, large = [], list: change = (entry) => entry } = options
  const entries = Object.entries(files).map(([path, content]) => {
    const oid = createHash('sha1').update(`blob ${content.length}\0`).update(content).digest('hex')
    const lfs = { oid: createHash('sha256').update(content).digest('hex'), size: content.length, pointerSize: 130 }
    return change({ type: 'file', path, size: content.length, oid, ...(large.includes(path) && { lfs }) })
  })
  const next = cursor + 2
  if (next < entries.length) {
    const url = new URL(request.url ?? '/', `http://${request.headers.host}`)
    url.searchParams.set('cursor', String(next))
    response.setHeader('link', `<${url.href}>; rel="next"`)
  }
  return json(response, 200, entries.slice(cursor, next))
}

function answerContent(context: Context, request: IncomingMessage, response: ServerResponse): unknown {
  const { options, requests, breaks, statuses, isStorage, storageUrl } = context
  const { range, authorization } = request.headers
  const prefix = `/${options.model}/resolve/${options.commit}/`
  const path = decodeURIComponent((request.url ?? '').replace(prefix, ''))
  const content = options.files[path]
  if (!content) return json(response, 404, { error: 'Entry not found' })
  if (!isStorage && options.large?.includes(path)) {
    return response.writeHead(302, { location: `${storageUrl}${prefix}${encodeURIComponent(path)}` }).end()
  }
  requests.push({ path, range, authorization })
  const status = statuses.get(path)?.shift()
  if (status !== undefined) return json(response, status, { error: 'told to fail' })
  const start = options.hasRanges === false ? 0 : Number(/^bytes=(\d+)-$/.exec(range ?? '')?.[1] ?? 0)
  if (start >= content.length && content.length > 0) return json(response, 416, { error: 'Range not satisfiable' })
  const body = content.subarray(start)
  const length = { 'content-length': String(body.length) }
  const part = { 'content-range': `bytes ${start}-${content.length - 1}/${content.length}` }
  response.writeHead(start > 0 ? 206 : 200, start > 0 ? { ...length, ...part } : length)
  const broken = breaks.get(path)?.shift()
  if (broken === undefined) return response.end(body)
  return response.write(body.subarray(0, broken), () => setTimeout(() => response.destroy(), 20))
}

function json(response: ServerResponse, status: number, value: object): unknown {
  return response.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify(value))
}

async function listen(server: Server): Promise<string> {
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`
}

async function stop(server: Server): Promise<void> {
  server.closeAllConnections()
  await new Promise((resolve) => server.close(resolve))
}

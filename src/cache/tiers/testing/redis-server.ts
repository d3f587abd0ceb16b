/** A Redis (or Valkey) of a test's own, on a free port of this machine, without a file. */
import { type ChildProcess, spawn } from 'node:child_process'
import { existsSync } from 'node:fs'
import { createServer } from 'node:net'
import { delimiter, join } from 'node:path'
import { setTimeout as wait } from 'node:timers/promises'

/** The same program under its names; Debian's redis-tools has it as the last one. */
const programs = ['redis-server', 'valkey-server', 'redis-check-rdb', 'valkey-check-rdb']

/** Where it is, or undefined on machines without. */
export const redisProgram = programs
  .flatMap((name) => (process.env.PATH ?? '').split(delimiter).map((folder) => join(folder, name)))
  .find((file) => existsSync(file))

export const withoutRedis = redisProgram === undefined && 'no redis-server or valkey-server on PATH'

export interface RedisServer {
  readonly url: string
  readonly process: ChildProcess
  stop(): Promise<void>
}

export async function startRedis(args: readonly string[] = [], at?: number): Promise<RedisServer> {
  const port = at ?? (await freePort())
  const options = ['--port', `${port}`, '--bind', '127.0.0.1', '--save', '', '--appendonly', 'no', ...args]
  const child = spawn(redisProgram as string, options, { argv0: 'redis-server', stdio: ['ignore', 'pipe', 'ignore'] })
  await new Promise<void>((resolve, reject) => {
    child.once('exit', (code) => reject(new Error(`redis-server ended with ${code}`)))
    child.stdout?.on('data', (text: Buffer) => /ready to accept/i.test(text.toString()) && resolve())
  })
  return {
    url: `redis://127.0.0.1:${port}`,
    process: child,
    stop: async () => {
      child.kill('SIGKILL')
      while (child.exitCode === null && child.signalCode === null) await wait(5)
    },
  }
}

async function freePort(): Promise<number> {
  const server = createServer()
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const { port } = server.address() as { port: number }
  await new Promise((resolve) => server.close(resolve))
  return port
}

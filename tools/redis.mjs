/**
 * Redis for tests. Where none is installed, an administrator's machine with apt-get gets Debian's redis-tools, which
 * has the program without starting a service; elsewhere the tests that need one are skipped, and say so.
 */
import { existsSync } from 'node:fs'
import { delimiter, join } from 'node:path'
import { runStep, say } from './steps.mjs'

const programs = ['redis-server', 'valkey-server', 'redis-check-rdb', 'valkey-check-rdb']

/** @param {{ isFresh(name: string, key: string): boolean, write(name: string, key: string, outputs: string[]): void }} stamps */
export async function ensureRedis(stamps) {
  if (programs.some(isOnPath) || stamps.isFresh('redis', 'tried')) return
  if (process.getuid?.() !== 0 || !isOnPath('apt-get')) {
    say('No redis-server or valkey-server found: tests of the Redis tier are skipped.')
    return
  }
  const args = ['install', '-y', '--no-install-recommends', 'redis-tools']
  const [result] = await runStep('Installing redis-tools for tests', [{ command: 'apt-get', args }], '/')
  stamps.write('redis', 'tried', [])
  if (!result.ok) say('redis-tools could not be installed: tests of the Redis tier are skipped.')
}

function isOnPath(name) {
  return (process.env.PATH ?? '').split(delimiter).some((folder) => existsSync(join(folder, name)))
}

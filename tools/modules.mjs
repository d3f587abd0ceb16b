/**
 * Keeps node_modules in step with package-lock.json: compares the lock file with the one that npm leaves inside
 * node_modules when an installation is complete, and runs `npm ci` when they differ.
 */
import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { runStep, say } from './steps.mjs'

/** Installs when needed. Returns false when that failed. */
export async function ensureModules(root) {
  const reason = whyInstall(root)
  if (reason === undefined) return true
  const [command, args] = npmCommand()
  const npm = async (...words) => {
    const flags = ['--no-audit', '--no-fund', '--loglevel=error']
    const title = `Installing dependencies with npm ${words[0]} (${reason})`
    const [result] = await runStep(title, [{ command, args: [...args, ...words, ...flags] }], root)
    return result
  }
  const first = await npm('ci')
  if (first.ok) return true
  say(summarise(first.output))
  // A registry that lacks packages of other platforms writes lock files that its own npm ci refuses.
  if (!first.output.includes('EUSAGE')) return false
  const second = await npm('install', '--no-save')
  if (!second.ok) say(summarise(second.output))
  return second.ok
}

/** What npm said before it goes on to list its options. */
function summarise(output) {
  return output.split(/^npm error (?:Clean install a project|Usage:)/m)[0].trimEnd()
}

/**
 * Says why node_modules has to be installed, or returns undefined when all that the lock file asks for is there.
 * Optional packages may be missing: those are the binaries of other platforms.
 */
export function whyInstall(root) {
  const installed = readPackages(join(root, 'node_modules', '.package-lock.json'))
  if (installed === undefined) return 'node_modules is missing or incomplete'
  const locked = readPackages(join(root, 'package-lock.json')) ?? {}
  for (const [path, { version, optional }] of Object.entries(locked)) {
    if (path === '') continue
    const found = installed[path]
    if (found === undefined && optional) continue
    const name = path.slice(path.lastIndexOf('node_modules/') + 'node_modules/'.length)
    if (found === undefined || !existsSync(join(root, path))) return `${name} is missing`
    if (found.version !== version) return `${name} is ${found.version}, and ${version} is wanted`
  }
  return undefined
}

function readPackages(file) {
  try {
    return JSON.parse(readFileSync(file, 'utf8')).packages
  } catch {
    return undefined
  }
}

/** The npm that started this program, else the one on the path. Windows can't start npm.cmd without a shell. */
function npmCommand() {
  const script = process.env.npm_execpath
  if (script && /npm-cli\.[cm]?js$/.test(script)) return [process.execPath, [script]]
  return process.platform === 'win32' ? ['cmd.exe', ['/c', 'npm']] : ['npm', []]
}

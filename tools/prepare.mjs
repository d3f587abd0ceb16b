/**
 * Makes a checkout ready to run: dependencies, the native addon and the WebAssembly kernels, each only when it is out
 * of date. A machine without a C++ compiler goes on with WebAssembly, and one line says so.
 */
import { readFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { addonPath, compilerVersion, nodeGypArgs } from './build-native.mjs'
import { ensureModules } from './modules.mjs'
import { contentKey, listFiles, openStamps } from './stale.mjs'
import { runStep, say } from './steps.mjs'

export const root = dirname(dirname(fileURLToPath(import.meta.url)))

const sources = ['native', 'binding.gyp']
const wasmScript = 'tools/build-wasm.mjs'
const shownLines = 30

/** Returns false, having said why, when the checkout can't run. */
export async function prepare() {
  if (!isSupportedNode(process.versions.node)) {
    say(`Kvasir needs Node.js 20.19 or newer, and this is ${process.version}.`)
    return false
  }
  return (await ensureModules(root)) && (await ensureKernels(openStamps(join(root, 'build/stamp.json'))))
}

/** @param {string} version "20.20.2" */
export function isSupportedNode(version) {
  const [major = 0, minor = 0] = version.split('.').map(Number)
  return major > 20 || (major === 20 && minor >= 19)
}

/** Both kinds of kernels are compiled side by side: one has a core busy for about as long as the other. */
async function ensureKernels(stamps) {
  const jobs = [planNative(stamps), planWasm(stamps)].filter((job) => job !== undefined)
  if (jobs.length === 0) return true
  const title = `Compiling the kernels (${jobs.map(({ name }) => name).join(', ')})`
  const commands = jobs.map(({ args }) => ({ command: process.execPath, args }))
  const results = await runStep(title, commands, root)
  return jobs.map((job, index) => job.finish(results[index])).every(Boolean)
}

/** What has to be run for the addon, if anything. That it can't be had is stamped too, and said once. */
function planNative(stamps) {
  const compiler = compilerVersion()
  const tools = [compiler ?? 'none', process.versions.modules, process.arch, ...lockedVersions(['node-gyp'])]
  const key = contentKey(root, sources, tools)
  if (stamps.isFresh('native', key)) return undefined
  if (compiler === undefined) {
    say('No C++ compiler found (c++, g++, clang++): attention runs as WebAssembly, which is slower.')
    stamps.write('native', key, [])
    return undefined
  }
  return {
    name: 'native',
    args: nodeGypArgs(root),
    finish: ({ ok, output }) => {
      stamps.write('native', key, ok ? [join(root, addonPath)] : [])
      if (ok) return true
      sayEnd(output)
      say('The native kernels did not compile (see above, or npm run native): attention runs as WebAssembly.')
      return true
    },
  }
}

function planWasm(stamps) {
  const key = contentKey(root, [...sources, wasmScript], lockedVersions(['@yowasp/clang']))
  if (stamps.isFresh('wasm', key)) return undefined
  return {
    name: 'WebAssembly',
    args: [wasmScript],
    finish: ({ ok, output }) => {
      if (ok) stamps.write('wasm', key, listFiles(join(root, 'build/wasm')))
      else sayEnd(output)
      return ok
    },
  }
}

function sayEnd(output) {
  say(output.trimEnd().split('\n').slice(-shownLines).join('\n'))
}

/** Versions of packages as the lock file names them. */
function lockedVersions(names) {
  const { packages } = JSON.parse(readFileSync(join(root, 'package-lock.json'), 'utf8'))
  return names.map((name) => `${name}@${packages[`node_modules/${name}`]?.version}`)
}

if (process.argv[1] === fileURLToPath(import.meta.url)) process.exitCode = (await prepare()) ? 0 : 1

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
const outputLines = 30

/** Returns false, having said why, when the checkout can't run. */
export async function prepare() {
  if (!supportedNode(process.versions.node)) {
    say(`Kvasir needs Node.js 20.19 or newer, and this is ${process.version}.`)
    return false
  }
  if (!(await ensureModules(root))) return false
  const stamps = openStamps(join(root, 'build/stamp.json'))
  await ensureNative(stamps)
  return await ensureWasm(stamps)
}

/** @param {string} version "20.20.2" */
export function supportedNode(version) {
  const [major = 0, minor = 0] = version.split('.').map(Number)
  return major > 20 || (major === 20 && minor >= 19)
}

async function ensureNative(stamps) {
  const compiler = compilerVersion()
  const tools = [
    compiler ?? 'none',
    process.versions.modules,
    process.arch,
    ...lockedVersions(['node-gyp', 'node-addon-api']),
  ]
  const key = contentKey(root, sources, tools)
  const note = stamps.fresh('native', key)
  if (note === undefined) await buildNative(stamps, key, compiler)
  else if (note !== '') say(note)
}

/** A build that failed is stamped too, so that it is tried again only when something has changed. */
async function buildNative(stamps, key, compiler) {
  if (compiler === undefined) {
    const note = 'No C++ compiler found (c++, g++, clang++): attention runs as WebAssembly, which is slower.'
    stamps.write('native', key, [], note)
    return say(note)
  }
  const { ok, output } = await runStep('Compiling the kernels', process.execPath, nodeGypArgs(root), { cwd: root })
  const addon = join(root, addonPath)
  if (ok) return stamps.write('native', key, [addon], '')
  const note =
    'The native kernels did not compile (npm run native shows why): attention runs as WebAssembly, which is slower.'
  say(output.trimEnd().split('\n').slice(-outputLines).join('\n'))
  stamps.write('native', key, [], note)
  say(note)
}

async function ensureWasm(stamps) {
  const script = 'tools/build-wasm.mjs'
  const key = contentKey(root, [...sources, script], lockedVersions(['@yowasp/clang']))
  if (stamps.fresh('wasm', key) !== undefined) return true
  const { ok, output } = await runStep('Compiling the kernels to WebAssembly', process.execPath, [script], {
    cwd: root,
  })
  if (!ok) say(output.trimEnd().split('\n').slice(-outputLines).join('\n'))
  const outputs = listFiles(join(root, 'build/wasm'))
  if (ok) stamps.write('wasm', key, outputs, '')
  return ok
}

/** Versions of packages as the lock file names them. */
function lockedVersions(names) {
  const { packages } = JSON.parse(readFileSync(join(root, 'package-lock.json'), 'utf8'))
  return names.map((name) => `${name}@${packages[`node_modules/${name}`]?.version}`)
}

if (process.argv[1] === fileURLToPath(import.meta.url)) process.exitCode = (await prepare()) ? 0 : 1

/**
 * Compiles the kernels in native/ to a Node addon, build/Release/kvasir.node, with node-gyp. Run by itself it shows
 * the compiler's output: `node tools/build-native.mjs`, or `npm run native`.
 */
import { execFileSync } from 'node:child_process'
import { existsSync, readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { runInForeground } from './steps.mjs'

export const addonPath = 'build/Release/kvasir.node'

/**
 * The arguments for `node` that build the addon. Not `rebuild`, which would remove build/wasm too.
 * @param {string} root
 */
export function nodeGypArgs(root) {
  const script = join(
    dirname(createRequire(join(root, 'package.json')).resolve('node-gyp/package.json')),
    'bin/node-gyp.js',
  )
  const headers = localHeaders()
  return [script, 'configure', 'build', '--jobs=max', ...(headers ? [`--nodedir=${headers}`] : [])]
}

/** First line of `c++ --version`, or undefined when there is no C++ compiler. */
export function compilerVersion() {
  if (process.platform === 'win32') return 'msvc' // node-gyp looks for Visual Studio by itself
  for (const command of [process.env.CXX, 'c++', 'g++', 'clang++']) {
    if (!command) continue
    try {
      return execFileSync(command, ['--version'], { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] }).split(
        '\n',
      )[0]
    } catch {} // not installed: the next one
  }
  return undefined
}

/** Where this Node's own headers lie, when they came with it: saves a download. */
function localHeaders() {
  const prefix = dirname(dirname(process.execPath))
  const header = join(prefix, 'include/node/node_version.h')
  if (!existsSync(header)) return undefined
  const text = readFileSync(header, 'utf8')
  const part = (name) => text.match(new RegExp(`#define NODE_${name}_VERSION (\\d+)`))?.[1]
  return `v${part('MAJOR')}.${part('MINOR')}.${part('PATCH')}` === process.version ? prefix : undefined
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const root = dirname(dirname(fileURLToPath(import.meta.url)))
  process.exitCode = await runInForeground(process.execPath, nodeGypArgs(root), { cwd: root })
}

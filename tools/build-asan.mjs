/**
 * Compiles the addon with AddressSanitizer and UndefinedBehaviorSanitizer into build-asan/, with the targets and flags of
 * binding.gyp. Needs g++ and the headers that `npm run native` found.
 */
import { execFileSync, spawn } from 'node:child_process'
import { createHash } from 'node:crypto'
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { availableParallelism } from 'node:os'
import { basename, dirname, isAbsolute, join, resolve } from 'node:path'

const compiler = process.env.CXX ?? 'g++'
// Alignment is not checked: x86 and Arm read floats anywhere, and views of stored rows begin anywhere.
const sanitizers = ['-fsanitize=address,undefined', '-fno-sanitize=vptr,alignment', '-fno-sanitize-recover=undefined']
const common = ['-std=c++17', '-fPIC', '-O1', '-g1', '-fno-omit-frame-pointer', '-DNAPI_VERSION=8']

/**
 * @param {string} root of the package
 * @returns {Promise<{ addon: string, guard: string, library: string }>} what to load, and what to preload
 */
export async function buildAsan(root) {
  const folder = join(root, 'build-asan')
  const built = { addon: join(folder, 'kvasir.node'), guard: join(folder, 'guard.node'), library: sanitizerLibrary() }
  mkdirSync(folder, { recursive: true })
  const includes = ['native/include', 'native/src', join(nodeHeaders(root), 'include/node')].map((path) => `-I${path}`)
  const units = readTargets(root).flatMap(({ sources, flags }) => sources.map((source) => ({ source, flags })))
  const objects = units.map(({ source, flags }) => {
    const output = join(folder, `${basename(source)}.o`)
    return { sources: [source], output, args: [...flags, ...common, ...sanitizers, ...includes, '-c', source] }
  })
  const guard = ['test/fuzz/guard.cc']
  await makeAll(root, [
    ...objects,
    { sources: guard, output: built.guard, args: [...common, ...includes, '-shared', ...guard] },
  ])
  const sources = objects.map(({ output }) => output)
  await makeAll(root, [{ sources, output: built.addon, args: ['-shared', ...sanitizers, ...sources, '-lpthread'] }])
  return built
}

/** Sources and flags of each target that binding.gyp has for this processor; optimisation and warnings left out. */
function readTargets(root) {
  const gyp = JSON.parse(readFileSync(join(root, 'binding.gyp'), 'utf8'))
  const isX64 = process.arch === 'x64'
  const targets = [...gyp.targets, ...(isX64 ? gyp.conditions.flatMap(([, { targets }]) => targets) : [])]
  return targets.map(({ sources, cflags_cc: flags, defines = [] }) => ({
    sources,
    flags: [
      // "<@(name)" stands for a list among the variables.
      ...flags.flatMap((flag) => gyp.variables[/^<@\((\w+)\)$/.exec(flag)?.[1]] ?? [flag]),
      ...[...defines, ...(isX64 ? ['KVASIR_X64'] : [])].map((name) => `-D${name}`),
    ].filter((flag) => !/^-(O|W|DNAPI)/.test(flag)),
  }))
}

/** What the output depends on: the command, the sources, and the headers that they may include. */
function fingerprint(root, { sources, args }) {
  const hash = createHash('sha256').update(`${compiler} ${args.join(' ')}`)
  const folders = new Set(['native/include/kvasir', 'native/src', dirname(sources[0])])
  const headers = [...folders].flatMap((folder) =>
    isAbsolute(folder) ? [] : readdirSync(join(root, folder)).map((name) => join(folder, name)),
  )
  const files = [...sources, ...headers.filter((name) => name.endsWith('.h')).sort()]
  for (const file of files) hash.update(readFileSync(resolve(root, file)))
  return hash.digest('hex')
}

/** Node itself is not instrumented, so the library has to be there before it starts. */
function sanitizerLibrary() {
  const path = execFileSync(compiler, ['-print-file-name=libasan.so'], { encoding: 'utf8' }).trim()
  if (!isAbsolute(path)) throw new Error(`expected ${compiler} to have AddressSanitizer (libasan.so), and it has not`)
  return path
}

function nodeHeaders(root) {
  const file = join(root, 'build/config.gypi')
  const folder = existsSync(file) && readFileSync(file, 'utf8').match(/"nodedir": "([^"]+)"/)?.[1]
  if (!folder) throw new Error('expected build/config.gypi to name the headers of Node: run npm run native first')
  return folder
}

/** Makes what is out of date, as many at a time as there are processors. */
async function makeAll(root, jobs) {
  const waiting = [...jobs].reverse()
  const work = async () => {
    for (let job = waiting.pop(); job; job = waiting.pop()) await make(root, job)
  }
  await Promise.all(Array.from({ length: availableParallelism() }, work))
}

function make(root, job) {
  const stamp = `${job.output}.stamp`
  const now = fingerprint(root, job)
  if (existsSync(job.output) && existsSync(stamp) && readFileSync(stamp, 'utf8') === now) return undefined
  return new Promise((resolve, reject) => {
    const child = spawn(compiler, [...job.args, '-o', job.output], {
      cwd: root,
      stdio: ['ignore', 'inherit', 'inherit'],
    })
    child.on('error', reject)
    child.on('exit', (code) => {
      if (code !== 0) return reject(new Error(`${compiler} could not make ${job.output}`))
      writeFileSync(stamp, now)
      resolve()
    })
  })
}

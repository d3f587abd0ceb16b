/**
 * Compiles the kernels to WebAssembly with the clang of `@yowasp/clang`, an npm package that needs no compiler on the
 * machine: build/wasm/kvasir.wasm (SIMD) and build/wasm/kvasir-relaxed.wasm (relaxed SIMD: fused multiply-add). Both
 * import a memory that threads share; src/kernels/wasm-code.ts makes it, and takes `shared` off the import where there
 * is none to be had.
 */
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { runClang } from '@yowasp/clang'

const root = fileURLToPath(new URL('..', import.meta.url))
const sources = [
  'native/bindings/wasm.cc',
  'native/src/kernels_vec4.cc',
  'native/src/retain.cc',
  'native/src/select.cc',
]
const variants = { kvasir: ['-msimd128'], 'kvasir-relaxed': ['-msimd128', '-mrelaxed-simd'] }

const common = [
  '--target=wasm32-wasi',
  '-mbulk-memory',
  '-matomics',
  '-std=c++17',
  '-O3',
  '-fno-exceptions',
  '-fno-rtti',
  '-fno-math-errno',
]
const link = [
  ...['-nostdlib', '-Wl,--no-entry', '-Wl,--strip-all', '-Wl,-z,stack-size=262144'],
  ...['-Wl,--import-memory', '-Wl,--shared-memory', '-Wl,--initial-memory=1048576', '-Wl,--max-memory=4294967296'],
  ...['-Wl,--export=__heap_base', '-Wl,--export=__stack_pointer'],
]

/** The folders that the compiler may see, as the nested object that `runClang` takes. */
function readTree(folder) {
  const entries = readdirSync(folder, { withFileTypes: true })
  return Object.fromEntries(
    entries.map((entry) => {
      const path = join(folder, entry.name)
      return [entry.name, entry.isDirectory() ? readTree(path) : readFileSync(path)]
    }),
  )
}

mkdirSync(join(root, 'build/wasm'), { recursive: true })
for (const [name, features] of Object.entries(variants)) {
  const output = `${name}.wasm`
  const flags = [...common, ...features, '-Inative/include', '-Inative/src', ...link]
  const messages = []
  const collect = (bytes) => bytes && messages.push(Buffer.from(bytes).toString())
  try {
    const files = await runClang(
      ['clang++', ...flags, ...sources, '-o', output],
      { native: readTree(join(root, 'native')) },
      {
        stdout: collect,
        stderr: collect,
      },
    )
    writeFileSync(join(root, 'build/wasm', output), files[output])
  } catch (error) {
    process.stderr.write(`${messages.join('')}\nbuilding ${output} failed: ${error.message}\n`)
    process.exit(1)
  }
}

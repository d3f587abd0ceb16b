/** The compiled kernels: where they come from, which variant this runtime takes, and the memory that they run in. */
import { KvasirError } from '../tensor/error.ts'
import { builtFile, isFile } from './files.ts'
import { nodeModule } from './host.ts'
import { whyOtherInterface } from './interface.ts'

export interface WasmCode {
  readonly bytes: Uint8Array<ArrayBuffer>
  /** `relaxed SIMD` or `SIMD`. */
  readonly label: string
}

/** Best first: relaxed SIMD has a fused multiply-add. */
const variants = [
  { file: 'kvasir-relaxed.wasm', label: 'relaxed SIMD' },
  { file: 'kvasir.wasm', label: 'SIMD' },
] as const

/** The feature test: a runtime without relaxed SIMD does not validate the module that uses it. */
const runs = (code: WasmCode): boolean => WebAssembly.validate(code.bytes)

let read: WasmCode | string | undefined

/** The best variant in build/wasm of this package, or why there is none. */
export function readCode(): WasmCode | string {
  read ??= findCode()
  return read
}

function findCode(): WasmCode | string {
  const fs = nodeModule('node:fs') as typeof import('node:fs') | undefined
  if (!fs) return 'in a page they have to be fetched first (fetchKernels)'
  const files = variants.map(({ file, label }) => ({ file: builtFile('wasm', file), label }))
  if (!files.every(({ file }) => isFile(file))) return 'the WebAssembly kernels are not built (npm run wasm)'
  const codes = files.map(({ file, label }) => ({ bytes: new Uint8Array(fs.readFileSync(file)), label }))
  const code = codes.find(runs)
  return code ? (whyOtherCode(code, 'npm run wasm') ?? code) : 'this runtime has no WebAssembly SIMD'
}

/** Why code that runs here is not for this version of the package, or nothing when it is: an export's name tells. */
export function whyOtherCode({ bytes }: WasmCode, remedy: string): string | undefined {
  // In the binary format the kind of what is exported follows its name: 0 is a function.
  const found = /interface_(\d+)\0/.exec(new TextDecoder('latin1').decode(bytes))
  return whyOtherInterface('the WebAssembly kernels', found ? Number(found[1]) : undefined, remedy)
}

/**
 * Makes the WebAssembly kernels known to a page, once, before anything else is asked of this package there. In Node.js
 * nobody has to.
 * @param folder where the files of `build/wasm` of this package are served, ending in a slash
 * @throws KvasirError `unsupported` when they can't be had, are of another version, or none of them runs here
 */
export async function fetchKernels(folder: string | URL): Promise<void> {
  read = await fetchCode(folder)
}

/**
 * The best variant among the files of a folder that serves those of build/wasm.
 * @throws KvasirError `unsupported` when they can't be had, are of another version, or none of them runs here
 */
export async function fetchCode(folder: string | URL): Promise<WasmCode> {
  for (const { file, label } of variants) {
    const response = await fetch(new URL(file, folder))
    if (!response.ok) {
      throw new KvasirError('unsupported', 'kernels', `expected ${response.url} to be there, got ${response.status}`)
    }
    const code = { bytes: new Uint8Array(await response.arrayBuffer()), label }
    if (!runs(code)) continue
    const problem = whyOtherCode(code, `serve build/wasm of this version at ${folder}`)
    if (problem === undefined) return code
    throw new KvasirError('unsupported', 'kernels', problem)
  }
  throw new KvasirError('unsupported', 'kernels', 'this runtime has no WebAssembly SIMD')
}

const compiled = new WeakMap<Uint8Array, Map<boolean, WebAssembly.Module>>()

export function compile({ bytes }: WasmCode, isShared: boolean): WebAssembly.Module {
  const modules = compiled.get(bytes) ?? new Map<boolean, WebAssembly.Module>()
  compiled.set(bytes, modules)
  const module = modules.get(isShared) ?? new WebAssembly.Module(isShared ? bytes : withUnsharedMemory(bytes))
  modules.set(isShared, module)
  return module
}

const pageBytes = 65536
/** As tools/build-wasm.mjs says to the linker. */
const initialPages = 16
const mostPages = 65536

/** Address space is taken for the most that a memory can grow to; where there is little, less has to do. */
export function createMemory(shared: boolean): WebAssembly.Memory {
  for (let maximum = mostPages; ; maximum /= 2) {
    try {
      return new WebAssembly.Memory({ initial: initialPages, maximum, shared })
    } catch (cause) {
      if (maximum > initialPages) continue
      const message = `cannot reserve a WebAssembly memory of ${initialPages * pageBytes} bytes`
      throw new KvasirError('out-of-memory', 'kernels', message, { cause })
    }
  }
}

/** The import `env.memory` in the binary format, up to its limits: 3 is "shared, with a maximum", 1 not shared. */
const memoryImport = [3, ...new TextEncoder().encode('env'), 6, ...new TextEncoder().encode('memory'), 2]
const [sharedLimits, unsharedLimits] = [3, 1]

/** A copy of the module that takes a memory of its own. Atomic instructions work on that as well. */
function withUnsharedMemory(bytes: Uint8Array<ArrayBuffer>): Uint8Array<ArrayBuffer> {
  const copy = bytes.slice()
  const expected = [...memoryImport, sharedLimits]
  const start = copy.findIndex((_, at) => expected.every((byte, i) => copy[at + i] === byte))
  if (start < 0) throw new KvasirError('internal', 'kernels', 'expected the kernels to import a shared memory')
  copy[start + memoryImport.length] = unsharedLimits
  return copy
}

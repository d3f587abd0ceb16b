/** WebAssembly on several threads. That it computes what it should is tested with all backends in attend.test.ts. */
import { execFile } from 'node:child_process'
import { createHash } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { setImmediate as nextTurn, setTimeout as sleep } from 'node:timers/promises'
import { promisify } from 'node:util'
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import { Worker } from 'node:worker_threads'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { type AttendShape, createAttendCase } from './cases.ts'
import type { AttendArgs, Kernels, Memory } from './contract.ts'
import { builtFile } from './files.ts'
import { openWasm, probeWasm } from './wasm.ts'
import { fetchCode } from './wasm-code.ts'
import { hostEnvironment, type WasmEnvironment, workerSource } from './wasm-environment.ts'

const decode: AttendShape = {
  ...{ name: 'decode', numTokens: 1, numHeads: 8, numKvHeads: 2, headDim: 64 },
  ...{ segments: [4501, 37], storage: 'f16', bias: 'random' },
}
const prefill: AttendShape = {
  ...{ name: 'prefill', numTokens: 130, numHeads: 4, numKvHeads: 2, headDim: 64 },
  ...{ segments: [233, 130], visibility: 'causal' },
}
/** So short that it stays on the caller's thread. */
const short: AttendShape = { name: 'short', numTokens: 1, numHeads: 2, numKvHeads: 2, headDim: 16, segments: [5] }

const isBuilt = probeWasm() === true

/** Output and log-sum-exp, bit by bit: NaN and -0 count. */
const bitsOf = ({ output, lse }: AttendArgs) => {
  const hash = createHash('sha256')
  for (const { buffer, byteOffset, byteLength } of [output, lse as Float32Array]) {
    hash.update(new Uint8Array(buffer, byteOffset, byteLength))
  }
  return hash.digest('hex')
}

const cases = new Map<string, AttendArgs>()

/** The same inputs each time, and arrays of its own for what comes out. */
function createCall(shape: AttendShape, seed: number): AttendArgs {
  const key = `${shape.name} ${seed}`
  const args = cases.get(key) ?? createAttendCase(shape, seed)
  cases.set(key, args)
  return { ...args, output: args.output.slice(), lse: args.lse?.slice() }
}

const ran = (kernels: Kernels, shape: AttendShape, seed = 1) => {
  const args = createCall(shape, seed)
  kernels.attend(args)
  return bitsOf(args)
}
const ranAsync = async (kernels: Kernels, shape: AttendShape, seed = 1) => {
  const args = createCall(shape, seed)
  await kernels.attendAsync(args)
  return bitsOf(args)
}
/** Workers take a moment to be there. */
const warm = async (kernels: Kernels) => void (await Promise.all([1, 2, 3, 4].map(() => ranAsync(kernels, prefill))))

describe.skipIf(!isBuilt)('WebAssembly on threads', () => {
  const alone = isBuilt ? openWasm(1) : (undefined as never)
  const expected = (shape: AttendShape, seed = 1) => ran(alone, shape, seed)

  test.each([2, 3, 5])('%i threads give the bits that one gives', async (threads) => {
    const kernels = openWasm(threads)
    expect(kernels.description).toContain(`${threads} threads`)
    await warm(kernels)
    for (const shape of [decode, prefill, short]) {
      expect(ran(kernels, shape)).toEqual(expected(shape))
      expect(await ranAsync(kernels, shape)).toEqual(expected(shape))
    }
  })

  test('calls at once and in the background, more than there are slots, mixed', async () => {
    const kernels = openWasm(2)
    const pending: Promise<unknown>[] = []
    for (let seed = 1; seed <= 24; seed++) {
      const shape = seed % 2 ? decode : prefill
      const kind = (seed % 4) + 1
      pending.push(ranAsync(kernels, shape, kind).then((bits) => expect(bits).toEqual(expected(shape, kind))))
      if (seed % 3 === 0) expect(ran(kernels, prefill, kind)).toEqual(expected(prefill, kind))
      if (seed % 8 === 0) await nextTurn()
    }
    await Promise.all(pending)
  })

  test('two instances at the same time', async () => {
    const both = [openWasm(2), openWasm(3)]
    const runs = both.flatMap((kernels) => [1, 2, 3].map((seed) => ranAsync(kernels, prefill, seed)))
    for (const kernels of both) expect(ran(kernels, decode)).toEqual(expected(decode))
    expect(await Promise.all(runs)).toEqual([1, 2, 3, 1, 2, 3].map((seed) => expected(prefill, seed)))
  })

  test('the caller goes on while a long call runs, even with one thread', async () => {
    const kernels = openWasm(1)
    await warm(kernels)
    let turns = 0
    let isDone = false
    const run = Promise.all([1, 2, 3, 4].map(() => ranAsync(kernels, prefill))).then(() => {
      isDone = true
    })
    while (!isDone) {
      await nextTurn()
      turns++
    }
    await run
    expect(turns).toBeGreaterThan(4)
  })

  test('memory grows under the workers, and views from before it did stay good', async () => {
    const kernels = openWasm(2)
    const held: Memory[] = []
    const inPlace = (seed: number) => {
      const args = createCall(decode, seed)
      const [first, ...rest] = args.segments
      if (!first) throw new Error('expected a segment')
      const memories = [1, 2].map(() => kernels.alloc(first.keys.byteLength))
      held.push(...memories)
      const [keys, values] = memories.map((memory) => memory.u16)
      keys?.set(first.keys)
      values?.set(first.values)
      return { ...args, segments: [{ ...first, keys: keys as Uint16Array, values: values as Uint16Array }, ...rest] }
    }
    const before = inPlace(7)
    const run = kernels.attendAsync(before)
    const sizes = [1, 2, 3].map(() => kernels.alloc(8 << 20).f32.buffer.byteLength)
    expect(new Set(sizes).size).toBeGreaterThan(1)
    await run
    expect(bitsOf(before)).toEqual(expected(decode, 7))
    const after = { ...before, output: new Float32Array(before.output.length), lse: new Float32Array(8) }
    kernels.attend(after)
    expect(bitsOf(after)).toEqual(expected(decode, 7))
    expect(held).toHaveLength(2)
  })

  test('measurements count what all threads did', async () => {
    const kernels = openWasm(2)
    await warm(kernels)
    const ones = kernels.alloc(4 << 20).f32.fill(1)
    expect(kernels.read(ones)).toBe(1 << 20)
    expect(kernels.multiplyAdd(1000)).toBe(2 * alone.multiplyAdd(1000))
  })
})

describe.skipIf(!isBuilt)('where workers fail', () => {
  const expected = (shape: AttendShape) => ran(openWasm(1), shape)

  test('without shared memory one thread serves, and says so', async () => {
    const kernels = openWasm(4, undefined, { ...hostEnvironment, canShare: 'nothing to share here' })
    expect(kernels.description).toMatch(/^wasm \(.*SIMD, 1 thread: nothing to share here\)$/)
    expect(kernels.alloc(64).f32.buffer).toBeInstanceOf(ArrayBuffer)
    for (const shape of [decode, prefill]) {
      expect(ran(kernels, shape)).toEqual(expected(shape))
      expect(await ranAsync(kernels, shape)).toEqual(expected(shape))
    }
  })

  const startFailures: Record<string, WasmEnvironment['startWorker']> = {
    'at once': () => {
      throw new Error('workers are forbidden')
    },
    later: (_, { ended }) => {
      setTimeout(() => ended('workers are forbidden'), 5)
      return { keepAlive() {} }
    },
  }
  test.each(Object.entries(startFailures))('workers that do not start (%s): one thread', async (_, startWorker) => {
    const kernels = openWasm(2, undefined, { ...hostEnvironment, startWorker })
    const runs = [ranAsync(kernels, prefill), ranAsync(kernels, decode)]
    expect(ran(kernels, prefill)).toEqual(expected(prefill))
    expect(await Promise.all(runs)).toEqual([expected(prefill), expected(decode)])
    expect(kernels.description).toContain('1 thread: workers are forbidden')
  })

  test.each([prefill, decode])('a worker that breaks off fails its call ($name) and no other', async (shape) => {
    const broken = workerSource.replace('log: Math.log', "log() { throw new Error('broken') }")
    expect(broken).not.toBe(workerSource)
    const startWorker: WasmEnvironment['startWorker'] = (workerData, { told, ended }) => {
      const worker = new Worker(broken, { eval: true, workerData, execArgv: [] })
      worker.on('message', told)
      worker.on('error', ({ message }) => ended(message))
      return { keepAlive() {} }
    }
    const kernels = openWasm(1, undefined, { ...hostEnvironment, startWorker })
    await expect(ranAsync(kernels, shape)).rejects.toThrow(
      '[kvasir:kernels] a worker broke off in the middle of a call: Error: broken',
    )
    for (let i = 0; i < 100 && !kernels.description.includes('broken'); i++) await sleep(10)
    expect(kernels.description).toContain('1 thread: broken')
    expect(ran(kernels, shape)).toEqual(expected(shape))
    expect(await ranAsync(kernels, shape)).toEqual(expected(shape))
  })

  test('a worker looks at the length of memory once more when its instance is there', () => {
    const steps: string[] = []
    const serve = () => steps.push('serve') - 4
    const workerData = { memory: { grow: (pages: number) => steps.push(`grow(${pages})`) } }
    class Instance {
      readonly exports = { serve, __stack_pointer: {} }
      constructor() {
        steps.push('instance')
      }
    }
    const threads = { workerData, parentPort: { postMessage() {} } }
    runInNewContext(workerSource, { WebAssembly: { Instance }, process: { getBuiltinModule: () => threads } })
    expect(steps).toEqual(['instance', 'grow(0)', 'serve'])
  })

  test('workers go when their kernels are collected', async () => {
    setFlagsFromString('--expose-gc')
    const collect = runInNewContext('gc') as () => void
    let ends = 0
    const startWorker: WasmEnvironment['startWorker'] = (start, { told }) =>
      hostEnvironment.startWorker(start, { told, ended: () => ends++ })
    await warm(openWasm(2, undefined, { ...hostEnvironment, startWorker }))
    for (let i = 0; i < 200 && ends < 2; i++) {
      collect()
      await sleep(20)
    }
    expect(ends).toBe(2)
  })

  test('a process waits for a call in the background, then ends by itself', async () => {
    const script = `
      const { openWasm } = await import('./src/kernels/wasm.ts')
      const [rows, ones] = [4096, (length) => new Float32Array(length).fill(1)]
      const segment = { keys: ones(rows * 128), values: ones(rows * 128), capacity: rows, lengths: Int32Array.of(rows) }
      const sizes = { numTokens: 1, numHeads: 8, numKvHeads: 1, headDim: 128, valueDim: 128, scale: 1, firstPosition: 0 }
      const args = { ...sizes, query: ones(1024), output: ones(1024).fill(0), segments: [segment] }
      openWasm(2).attendAsync(args).then(() => console.log(args.output[1023]))
    `
    const args = ['--import', 'tsx', '--input-type=module', '--eval', script]
    const { stdout } = await promisify(execFile)(process.execPath, args, { timeout: 60_000 })
    expect(stdout).toBe('1\n')
  }, 70_000)
})

describe.skipIf(!isBuilt)('the kernels over the network', () => {
  const server = createServer(({ url = '' }, response) => {
    const isKnown = /^\/wasm\/kvasir[a-z-]*\.wasm$/.test(url)
    response.writeHead(isKnown ? 200 : 404).end(isKnown ? readFileSync(builtFile(url)) : undefined)
  })
  let address = ''
  beforeAll(async () => {
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
    address = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
  })
  afterAll(() => void server.close())

  test('are the same', async () => {
    const kernels = openWasm(2, await fetchCode(`${address}/wasm/`))
    expect(ran(kernels, prefill)).toEqual(ran(openWasm(1), prefill))
  })

  test('are missed with their address', async () => {
    await expect(fetchCode(`${address}/elsewhere/`)).rejects.toThrow(
      `${address}/elsewhere/kvasir-relaxed.wasm to be there`,
    )
  })
})

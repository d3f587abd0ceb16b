/** Long calls of the WebAssembly kernels go in and out by chunks of tokens: the same bits in bounded memory. */
import { describe, expect, test } from 'vitest'
import { type AttendShape, createAttendCase } from './cases.ts'
import type { AttendArgs, Kernels } from './contract.ts'
import { openWasm, probeWasm } from './wasm.ts'
import { hostEnvironment } from './wasm-environment.ts'

type Numbers = Float32Array | Uint16Array

const long = {
  ...{ numTokens: 2011, numHeads: 20, numKvHeads: 4, headDim: 8, valueDim: 12, segments: [331, 2011] },
  ...{ visibility: 'causal' },
} satisfies Omit<AttendShape, 'name'>
const brief = { numTokens: 900, segments: [200], visibility: 'all' } as const
const shapes: AttendShape[] = [
  { ...long, name: 'causal, rotated', rotation: 'half' },
  // Which rows go together depends on the tile where a window slides.
  {
    ...long,
    name: 'window, f16',
    visibility: 'all',
    positions: 'consecutive',
    left: 300,
    right: 0,
    queryStorage: 'f16',
  },
  { ...long, name: 'births and deaths', visibility: 'random', bias: 'random', sinkLogits: 'all' },
  {
    ...long,
    numTokens: 900,
    segments: [331, 900],
    name: 'ALiBi, paged',
    positions: 'consecutive',
    alibi: true,
    pageSize: 64,
    layout: 'shared',
  },
  { ...long, ...brief, name: 'mask by head', mask: 'hide-by-head' },
  { ...long, ...brief, name: 'mask by token', mask: 'add' },
]

const isBuilt = probeWasm() === true

/** A copy in memory of the kernels: calls on it go at once, whatever their length. */
function inMemory<A extends Numbers>(kernels: Kernels, array: A): A {
  const memory = kernels.alloc(array.byteLength)
  const view = (array instanceof Float32Array ? memory.f32 : memory.u16).subarray(0, array.length) as A
  view.set(array as never)
  // A block that nobody holds is given back.
  held.push(memory)
  return view
}
const held: unknown[] = []

const bytesOf = ({ buffer, byteOffset, byteLength }: Numbers) => Buffer.from(buffer, byteOffset, byteLength)
const expectSame = (actual: AttendArgs, expected: AttendArgs) => {
  for (const name of ['output', 'lse', 'logits'] as const) {
    const [a, b] = [actual[name], expected[name]]
    if (a || b) expect(bytesOf(a as Numbers).equals(bytesOf(b as Numbers)), name).toBe(true)
  }
}
const withPlainResults = (args: AttendArgs): AttendArgs => ({
  ...args,
  output: args.output.slice(),
  lse: args.lse?.slice(),
  logits: args.logits?.slice(),
})

describe.skipIf(!isBuilt)('long calls of WebAssembly', () => {
  test.each(shapes)('$name: chunks give the bits of one call', async (shape) => {
    const kernels = openWasm(2)
    const args = createAttendCase(shape, 5)
    const whole = { ...args, query: inMemory(kernels, args.query), output: inMemory(kernels, args.output) }
    kernels.attend(whole)
    const [atOnce, inBackground] = [withPlainResults(args), withPlainResults(args)]
    kernels.attend(atOnce)
    expectSame(atOnce, whole)
    await kernels.attendAsync(inBackground)
    expectSame(inBackground, whole)
  })

  test('with logits, and where memory that grows takes views away', async () => {
    const kernels = openWasm(1, undefined, { ...hostEnvironment, canShare: 'no' })
    const args = createAttendCase({ ...long, ...brief, name: 'logits', positions: 'consecutive', right: 0 }, 6)
    const [segment] = args.segments
    const rows = args.numTokens * args.numHeads
    const expected = withPlainResults({ ...args, logits: new Float32Array(rows * (segment?.capacity ?? 0)) })
    // Short enough for a call each.
    for (let token = 0; token < args.numTokens; token++) kernels.attend(tokenOf(expected, token))
    const actual = withPlainResults({ ...expected, query: inMemory(kernels, args.query) })
    actual.output.fill(0)
    kernels.attend(actual)
    expectSame(actual, expected)
  })

  test('memory does not grow with the tokens of a call', async () => {
    const [kernels, tokens] = [openWasm(2), 8192]
    const args = createAttendCase({ ...long, numTokens: tokens, segments: [64], visibility: 'all', name: 'longer' }, 7)
    await kernels.attendAsync(args)
    kernels.attend(args)
    // Queries and results of a chunk take 0.7 MiB, of all 8192 tokens 12 MiB.
    expect(kernels.alloc(1).f32.buffer.byteLength).toBeLessThan(4 << 20)
  })
})

/** The call of one token, on the arrays of the whole. */
function tokenOf(args: AttendArgs, token: number): AttendArgs {
  const { numHeads: H, headDim, valueDim, segments } = args
  const of = (array: Numbers | undefined, size: number) => array?.subarray(token * size, (token + 1) * size)
  return {
    ...{ ...args, numTokens: 1, firstPosition: args.firstPosition + token },
    query: of(args.query, H * headDim) as Numbers,
    output: of(args.output, H * valueDim) as Numbers,
    lse: of(args.lse, H) as Float32Array,
    logits: of(args.logits, H * (segments[0]?.capacity ?? 0)) as Float32Array,
  }
}

import { mkdir, mkdtemp, open as openFile, rm, symlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import fc from 'fast-check'
import { InferenceSession, Tensor } from 'onnxruntime-node'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { isKvasirError } from '../tensor/error.ts'
import { valueInfo } from './builder.ts'
import { decodeModel, encodeMessage, encodeModel, make } from './codec.ts'
import { externalRoot } from './external.ts'
import { openOnnxFile } from './onnx-file.ts'
import { attributeTypes, dataTypes, type OnnxTensor } from './schema.ts'
import { WireWriter } from './wire.ts'

let folder = ''
let count = 0
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'kvasir-onnx-'))
})
afterAll(() => rm(folder, { recursive: true }))

const [rows, columns] = [16, 24]
const weight = Float32Array.from({ length: rows * columns }, (_, i) => Math.sin(i))
const bytes = new Uint8Array(weight.buffer)

/** y = x W^T with the given initializer as W. */
function modelOf(initializer: OnnxTensor): Uint8Array {
  const attribute = [make('Attribute', { name: 'transB', type: attributeTypes.int, i: 1 })]
  const graph = make('Graph', {
    name: 'g',
    node: [make('Node', { opType: 'Gemm', input: ['x', 'w'], output: ['y'], attribute })],
    input: [valueInfo('x', dataTypes.float, ['T', columns])],
    output: [valueInfo('y', dataTypes.float, ['T', rows])],
    initializer: [initializer],
  })
  return encodeModel(
    make('Model', { irVersion: 10, graph, opsetImport: [make('OperatorSet', { domain: '', version: 21 })] }),
  )
}

const base = { name: 'w', dims: [rows, columns], dataType: dataTypes.float }
const raw = (change: Partial<OnnxTensor> = {}): OnnxTensor => make('Tensor', { ...base, rawData: bytes, ...change })
const external = (place: Record<string, string>, change: Partial<OnnxTensor> = {}): OnnxTensor =>
  make('Tensor', {
    ...base,
    dataLocation: 1,
    externalData: Object.entries(place).map(([key, value]) => make('StringEntry', { key, value })),
    ...change,
  })

async function open(file: Uint8Array) {
  const path = join(folder, `${count++}.onnx`)
  await writeFile(path, file)
  return openOnnxFile(path)
}

async function expectProduct(file: Uint8Array): Promise<void> {
  const model = await open(file)
  expect(model.graph!.initializer[0]!.rawData).toBeUndefined()
  const session = await InferenceSession.create(encodeModel(model), {
    extra: { session: { model_external_initializers_file_folder_path: externalRoot(folder) } },
  })
  const x = Float32Array.from({ length: columns }, (_, i) => i - 7)
  const { y } = await session.run({ x: new Tensor('float32', x, [1, columns]) })
  await session.release()
  for (let row = 0; row < rows; row++) {
    const expected = x.reduce((sum, value, i) => sum + value * weight[row * columns + i]!, 0)
    expect((y!.data as Float32Array)[row]).toBeCloseTo(expected, 3)
  }
}

describe('an ONNX file', () => {
  it('is run with the weights that lie inside it', () => expectProduct(modelOf(raw())))

  it('is run with the weights that lie beside it', async () => {
    await writeFile(join(folder, 'w.data'), Buffer.concat([Buffer.alloc(5), bytes]))
    await expectProduct(modelOf(external({ location: 'w.data', offset: '5', length: String(bytes.length) })))
    await expectProduct(modelOf(external({ location: './w.data', offset: '5' })))
  })

  it('keeps small constants', async () => {
    const { graph } = await open(modelOf(raw({ dims: [2, 3], rawData: bytes.slice(0, 24) })))
    expect(graph!.initializer[0]!.rawData).toEqual(Buffer.from(bytes.slice(0, 24)))
  })

  it('is read without its weights, even beyond 2 GiB', async () => {
    const far = 2 ** 31 + 4096
    const head = (...parts: readonly (readonly [field: number, length: number])[]): Buffer => {
      const writer = new WireWriter()
      for (const [field, length] of parts) {
        writer.tag(field, 2)
        writer.varint(length)
      }
      return Buffer.from(writer.finish())
    }
    // A tensor of two gigabytes, which are a hole in the file, and after it the weights that are wanted.
    const big = encodeMessage('Tensor', make('Tensor', { name: 'big', dims: [far], dataType: dataTypes.uint8 }))
    const rawHead = head([9, far])
    const bigHead = head([5, big.length + rawHead.length + far])
    const { graph, ...rest } = decodeModel(modelOf(raw()))
    const tail = encodeMessage('Graph', graph!)
    const inner = Buffer.concat([bigHead, big, rawHead])
    const before = Buffer.concat([encodeMessage('Model', rest), head([7, inner.length + far + tail.length]), inner])
    const path = join(folder, 'far.onnx')
    const handle = await openFile(path, 'w')
    await handle.write(before, 0, before.length, 0)
    await handle.write(tail, 0, tail.length, before.length + far)
    await handle.close()
    const memory = process.memoryUsage().arrayBuffers
    const { initializer } = (await openOnnxFile(path)).graph!
    expect(process.memoryUsage().arrayBuffers - memory).toBeLessThan(2 ** 24)
    const places = initializer.map(({ externalData }) =>
      externalData.filter(({ key }) => key !== 'location').map(({ value }) => Number(value)),
    )
    expect(places).toEqual([
      [before.length, far],
      [before.length + far + Buffer.from(tail).indexOf(bytes), bytes.length],
    ])
    await rm(path)
  })

  const size = String(bytes.length)
  const refused: Record<string, [OnnxTensor, string]> = {
    'too few bytes': [raw({ rawData: bytes.slice(4) }), 'expected 1536 bytes for initializer "w", got 1532'],
    'a negative dimension': [
      raw({ dims: [-1, -384] }),
      'expected a possible shape for initializer "w", got [-1, -384]',
    ],
    'an impossible shape': [raw({ dims: [2 ** 40, 2 ** 40, 0] }), 'expected a possible shape'],
    'a shape of 64 bits': [raw({ dims: [2n ** 62n] }), 'expected a possible shape'],
    'a type that is no number': [raw({ dataType: 8 }), 'expected a numeric type for initializer "w", got 8'],
    'no location': [external({}), 'expected a file below the model\'s folder for "w", got ""'],
    'an absolute location': [external({ location: '/etc/passwd' }), 'expected a file below'],
    'a location above': [external({ location: 'a/../../w' }), 'expected a file below'],
    'a location above, by backslash': [external({ location: '..\\w' }), 'expected a file below'],
    'a drive': [external({ location: 'C:w' }), 'expected a file below'],
    'a file that is not there': [external({ location: 'absent' }), 'expected weights of "w" at'],
    'an offset past the end': [
      external({ location: 'w.data', offset: '6', length: size }),
      'expected 1536 bytes inside',
    ],
    'a negative offset': [external({ location: 'w.data', offset: '-1', length: size }), 'expected 1536 bytes inside'],
    'an offset that is no number': [external({ location: 'w.data', offset: 'x' }), 'expected 1536 bytes inside'],
    'a length of something else': [external({ location: 'w.data', offset: '0', length: '8' }), 'got 8 bytes at 0'],
  }
  for (const [name, [tensor, message]] of Object.entries(refused)) {
    it(`is refused with ${name}`, async () => {
      await writeFile(join(folder, 'w.data'), Buffer.concat([Buffer.alloc(5), bytes]))
      await expect(open(modelOf(tensor))).rejects.toThrow(message)
    })
  }

  it('follows links in its folder and to where it lies itself, and to nowhere else', async () => {
    const [outside, inside] = [await mkdtemp(join(tmpdir(), 'kvasir-outside-')), join(folder, 'linked')]
    await mkdir(inside)
    await writeFile(join(outside, 'blob'), bytes)
    await symlink(join(outside, 'blob'), join(inside, 'w.data'))
    const model = modelOf(external({ location: 'w.data', offset: '0', length: size }))
    const file = join(inside, 'model.onnx')
    await writeFile(file, model)
    await expect(openOnnxFile(file)).rejects.toMatchObject({ code: 'invalid-file' })
    await expect(openOnnxFile(file)).rejects.toThrow("below the model's folder, got a link from")
    // The cache of the hub: both are links to blobs beside one another.
    await writeFile(join(outside, 'model'), model)
    await rm(file)
    await symlink(join(outside, 'model'), file)
    await expect(openOnnxFile(file)).resolves.toBeDefined()
    await rm(outside, { recursive: true })
  })

  it('is refused with files that subgraphs and constants name', async () => {
    const outside = external({ location: '/etc/passwd' })
    const constant = (t: OnnxTensor) => ({ name: 'value', type: attributeTypes.tensor, t })
    const branch = (initializer: OnnxTensor) => ({
      name: 'then_branch',
      type: attributeTypes.graph,
      g: make('Graph', { initializer: [initializer] }),
    })
    const withAttribute = (attribute: Parameters<typeof make<'Attribute'>>[1]): Uint8Array => {
      const model = decodeModel(modelOf(raw()))
      model.graph!.node[0]!.attribute.push(make('Attribute', attribute))
      return encodeModel(model)
    }
    await expect(open(withAttribute(constant(outside)))).rejects.toThrow('expected data inside the graph')
    await expect(open(withAttribute(branch(outside)))).rejects.toThrow("expected a file below the model's folder")
    await expect(open(withAttribute(branch(raw())))).resolves.toBeDefined()
  })

  it('is refused when it is not there', async () => {
    await expect(openOnnxFile(join(folder, 'absent.onnx'))).rejects.toMatchObject({ code: 'not-found' })
  })

  it('is answered with a model or a KvasirError when it is damaged', async () => {
    const file = modelOf(raw())
    const end = file.length - bytes.length // most of the file is weights, which may be anything
    const flips = fc.array(fc.tuple(fc.nat(end), fc.nat(255)), { minLength: 1, maxLength: 3 })
    await fc.assert(
      fc.asyncProperty(flips, async (changes) => {
        const damaged = file.slice()
        for (const [at, value] of changes) damaged[at] = value
        const error = await open(damaged).then(
          () => undefined,
          (reason: unknown) => reason,
        )
        if (error !== undefined) expect(isKvasirError(error), String(error)).toBe(true)
      }),
      { numRuns: 300 },
    )
  })
})

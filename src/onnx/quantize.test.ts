import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { InferenceSession, Tensor } from 'onnxruntime-node'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { linear } from './blocks.ts'
import { GraphBuilder } from './builder.ts'
import { encodeModel } from './codec.ts'
import { externalRoot } from './external.ts'
import {
  blockSize,
  type QuantizedBits,
  quantizableWeights,
  quantizedNames,
  quantizeMatrix,
  quantizeModel,
} from './quantize.ts'
import type { TensorEntry } from './safetensors.ts'
import { dataTypes } from './schema.ts'

let folder = ''
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'kvasir-quantize-'))
})
afterAll(() => rm(folder, { recursive: true }))

/** What the codes mean, `[rows, columns]`. */
function dequantize(
  codes: Uint8Array,
  scales: Float32Array,
  rows: number,
  columns: number,
  bits: QuantizedBits,
): number[] {
  const numBlocks = Math.ceil(columns / blockSize)
  const result: number[] = []
  for (let row = 0; row < rows; row++) {
    for (let column = 0; column < columns; column++) {
      const element = row * numBlocks * blockSize + column
      const code = bits === 8 ? codes[element]! : (codes[element >> 1]! >> (4 * (element % 2))) & 15
      result.push((code - 2 ** (bits - 1)) * scales[Math.floor(element / blockSize)]!)
    }
  }
  return result
}

const matrix = (rows: number, columns: number): Float32Array =>
  Float32Array.from({ length: rows * columns }, (_, i) => Math.sin(i * 12.9898) * Math.exp(Math.sin(i * 0.37)))

describe('quantized matrices', () => {
  for (const bits of [4, 8] as const) {
    it(`of ${bits} bits are off by half a step at most, a step at the far end of the range`, () => {
      const [rows, columns] = [3, 70]
      const values = matrix(rows, columns)
      const { codes, scales } = quantizeMatrix(values, rows, bits)
      expect([codes.length, scales.length]).toEqual([(rows * 3 * 32 * bits) / 8, rows * 3])
      const numBlocks = 3
      for (const [i, value] of dequantize(codes, scales, rows, columns, bits).entries()) {
        const block = Math.floor(i / columns) * numBlocks + Math.floor((i % columns) / blockSize)
        const step = Math.abs(scales[block]!)
        // +8 does not exist in 4 bits: what lies opposite to the extreme is cut to +7 steps.
        const isOpposite = values[i]! / scales[block]! > 2 ** (bits - 1) - 1
        expect(Math.abs(value - values[i]!)).toBeLessThanOrEqual(step * (isOpposite ? 1 : 0.5) + 1e-6)
      }
    })

    it(`of ${bits} bits keep the largest magnitude of each block, and zeros`, () => {
      const values = matrix(1, 32)
      values[7] = 9
      const { codes, scales } = quantizeMatrix(values, 1, bits)
      expect(dequantize(codes, scales, 1, 32, bits)[7]).toBe(9)
      const zeros = quantizeMatrix(new Float32Array(32), 1, bits)
      expect(dequantize(zeros.codes, zeros.scales, 1, 32, bits).map(Math.abs)).toEqual(new Array(32).fill(0))
    })
  }

  for (const bits of [4, 8] as const) {
    for (const [rows, columns] of [
      [64, 96],
      [40, 70],
    ] as const) {
      it(`are what ONNX Runtime multiplies with: ${bits} bits, [${rows}, ${columns}]`, async () => {
        const values = matrix(rows, columns)
        const bias = matrix(1, rows)
        const numBlocks = Math.ceil(columns / blockSize)
        const { codes, scales } = quantizeMatrix(values, rows, bits)
        const name = quantizedNames('w.weight')
        const source = await store({ 'w.weight': [values, 'F32', [rows, columns]], 'w.bias': [bias, 'F32', [rows]] })
        const quantized = await store({
          [name.codes]: [codes, 'U8', [rows, numBlocks, 4 * bits]],
          [name.scales]: [scales, 'F32', [rows, numBlocks]],
        })
        const graph = new GraphBuilder(source)
        const x = graph.input('x', dataTypes.float, ['T', columns])
        const y = linear(graph, x, 'w', { inFeatures: columns, outFeatures: rows, bias: true })
        const model = graph.finish(y, ['T', rows])
        expect(quantizableWeights(model, source).map((entry) => entry.name)).toEqual(['w.weight'])
        const session = await InferenceSession.create(encodeModel(quantizeModel(model, quantized, bits)), {
          extra: { session: { model_external_initializers_file_folder_path: externalRoot(folder) } },
        })
        const input = matrix(2, columns)
        const { logits } = await session.run({ x: new Tensor('float32', input, [2, columns]) })
        await session.release()
        const weights = dequantize(codes, scales, rows, columns, bits)
        for (let i = 0; i < 2 * rows; i++) {
          const [t, row] = [Math.floor(i / rows), i % rows]
          let expected = bias[row]!
          let magnitude = 0
          for (let j = 0; j < columns; j++) {
            const product = input[t * columns + j]! * weights[row * columns + j]!
            expected += product
            magnitude += product * product
          }
          // Activations are rounded to int8 by block: errors add up like noise.
          const error = Math.abs((logits!.data as Float32Array)[i]! - expected)
          expect(error).toBeLessThan(0.03 * Math.sqrt(magnitude) + 1e-4)
        }
      })
    }
  }

  it('are not made of weights that are no numbers', () => {
    for (const wrong of [Number.NaN, Number.POSITIVE_INFINITY]) {
      expect(() => quantizeMatrix(new Float32Array(32).fill(1).fill(wrong, 5, 6), 1, 8)).toThrow(`got ${wrong}`)
    }
  })

  it('are not made of small ones', async () => {
    const source = await store({ 'w.weight': [matrix(2, 64), 'F32', [2, 64]] })
    const graph = new GraphBuilder(source)
    const x = graph.input('x', dataTypes.float, ['T', 64])
    const model = graph.finish(linear(graph, x, 'w', { inFeatures: 64, outFeatures: 2, bias: false }), ['T', 2])
    expect(quantizableWeights(model, source)).toEqual([])
  })
})

let count = 0

/** Writes arrays one after the other into a file. */
async function store(
  arrays: Record<string, [Float32Array | Uint8Array, TensorEntry['dtype'], number[]]>,
): Promise<Map<string, TensorEntry>> {
  const file = join(folder, `${count++}.bin`)
  const entries = new Map<string, TensorEntry>()
  const parts: Uint8Array[] = []
  let offset = 0
  for (const [name, [array, dtype, shape]] of Object.entries(arrays)) {
    entries.set(name, { name, dtype, shape, file, offset, byteLength: array.byteLength })
    parts.push(new Uint8Array(array.buffer))
    offset += array.byteLength
  }
  await writeFile(file, Buffer.concat(parts))
  return entries
}

import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { type TestData, writeTensors } from './testing/doge-checkpoint.ts'
import { openWeights, parseIndex, readTensor, sameTensor } from './weights.ts'

let folder = ''
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'kvasir-weights-'))
})
afterEach(() => rm(folder, { recursive: true }))

function tensor(name: string, values: readonly number[]): TestData {
  return { name, dtype: 'F32', shape: [values.length], bytes: new Uint8Array(Float32Array.from(values).buffer) }
}

async function writeIndex(weightMap: unknown): Promise<void> {
  await writeFile(join(folder, 'model.safetensors.index.json'), JSON.stringify({ weight_map: weightMap }))
}

describe('the weights of a checkpoint', () => {
  it('come from the one file when there is one', async () => {
    await writeTensors(join(folder, 'model.safetensors'), [tensor('a', [1, 2]), tensor('b', [3])])
    await writeIndex({ c: 'model-00001-of-00001.safetensors' })
    const weights = await openWeights(folder)
    expect([...weights.keys()].sort()).toEqual(['a', 'b'])
    expect([...(await readTensor(weights.get('a')!))]).toEqual([1, 2])
  })

  it('come from the shard that the index names, and only what it names', async () => {
    await writeTensors(join(folder, 'x.safetensors'), [tensor('a', [1]), tensor('b', [2])])
    await writeTensors(join(folder, 'y.safetensors'), [tensor('b', [3]), tensor('spare', [4])])
    await writeIndex({ a: 'x.safetensors', b: 'y.safetensors' })
    const weights = await openWeights(folder)
    expect([...weights.keys()].sort()).toEqual(['a', 'b'])
    expect([...(await readTensor(weights.get('b')!))]).toEqual([3])
  })

  it('are refused when a shard lacks a tensor, or is not there', async () => {
    await writeTensors(join(folder, 'x.safetensors'), [tensor('a', [1])])
    await writeIndex({ a: 'x.safetensors', b: 'x.safetensors' })
    await expect(openWeights(folder)).rejects.toThrow('expected tensor "b" in x.safetensors, got none')
    await writeIndex({ a: 'x.safetensors', b: 'y.safetensors' })
    await expect(openWeights(folder)).rejects.toThrow('expected a readable file at')
    await rm(join(folder, 'model.safetensors.index.json'))
    await expect(openWeights(folder)).rejects.toThrow('expected model.safetensors or model.safetensors.index.json')
  })

  it('never lie outside the folder', () => {
    const shards = [
      '../x.safetensors',
      '/etc/x.safetensors',
      'a/b.safetensors',
      'a\\b.safetensors',
      '..',
      '',
      'x.bin',
      3,
    ]
    for (const shard of [...shards, null, 'c:x.safetensors', 'x\0.safetensors']) {
      const text = JSON.stringify({ weight_map: { a: shard } })
      expect(() => parseIndex(text, 'index'), String(shard)).toThrow('expected a plain file name for the shard of "a"')
    }
    for (const text of ['{}', '[]', 'null', '{"weight_map":[]}', '{"weight_map":null}']) {
      expect(() => parseIndex(text, 'index'), text).toThrow('expected an object for weight_map')
    }
    expect(() => parseIndex('{', 'index')).toThrow('expected JSON')
  })

  it('are read from f16 and bf16 exactly', async () => {
    const half = Uint16Array.of(0x3c00, 0xc000, 0x3555, 0x7bff, 0x0001)
    const brain = Uint16Array.of(0x3f80, 0xc000, 0x3eab, 0x7f7f, 0x0080)
    await writeTensors(join(folder, 'model.safetensors'), [
      { name: 'half', dtype: 'F16', shape: [5], bytes: new Uint8Array(half.buffer) },
      { name: 'brain', dtype: 'BF16', shape: [5], bytes: new Uint8Array(brain.buffer) },
      { name: 'whole', dtype: 'I8', shape: [3], bytes: Uint8Array.of(1, 2, 3) },
    ])
    const weights = await openWeights(folder)
    expect([...(await readTensor(weights.get('half')!))]).toEqual([1, -2, 0.333251953125, 65504, 2 ** -24])
    const brains = await readTensor(weights.get('brain')!)
    expect([...brains]).toEqual([1, -2, 0.333984375, Math.fround(3.3895313892515355e38), 2 ** -126])
    await expect(readTensor(weights.get('whole')!)).rejects.toThrow('expected F32, F16 or BF16 for "whole", got I8')
  })

  it('are compared by dtype, shape and every byte', async () => {
    const long = Array.from({ length: 300_000 }, (_, i) => i)
    const changed = long.with(299_999, -1)
    const list = [tensor('a', long), tensor('b', long), tensor('c', changed), tensor('d', long.slice(1))]
    await writeTensors(join(folder, 'model.safetensors'), list)
    const weights = await openWeights(folder)
    const same = (b: string) => sameTensor(weights.get('a')!, weights.get(b)!)
    expect([await same('a'), await same('b'), await same('c'), await same('d')]).toEqual([true, true, false, false])
  })
})

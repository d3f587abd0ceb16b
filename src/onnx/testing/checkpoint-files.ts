/** Writes checkpoints of random numbers for tests: safetensors, whole or in shards, config.json and a byte tokenizer. */
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { f16ToF32, f32ToF16 } from '../../tensor/float16.ts'
import { type TensorPlan, writeSafetensors } from '../safetensors-writer.ts'

export interface TestTensor {
  shape: number[]
  /** As the file holds them: rounded to its dtype. */
  values: Float32Array
  dtype: 'F32' | 'F16' | 'BF16'
}

/** Token 256 ends a text; 0 to 255 are bytes; others have no text. */
export const endToken = 256

/** Name, shape, mean and spread. */
export type TensorSpread = readonly [name: string, shape: number[], mean: number, spread: number]

export function randomTensors(
  list: readonly TensorSpread[],
  dtype: TestTensor['dtype'],
  seed: number,
): Map<string, TestTensor> {
  const random = normalNumbers(seed)
  const tensors = new Map<string, TestTensor>()
  for (const [name, shape, mean, spread] of list) {
    const size = shape.reduce((product, dim) => product * dim, 1)
    const values = Float32Array.from({ length: size }, () => round(mean + spread * random(), dtype))
    tensors.set(name, { shape, values, dtype })
  }
  return tensors
}

export interface CheckpointFiles {
  readonly tensors: ReadonlyMap<string, TestTensor>
  /** More than 1: sharded with an index. */
  readonly shards: number
  readonly config: Readonly<Record<string, unknown>>
}

export async function writeCheckpoint(folder: string, { tensors, shards, config }: CheckpointFiles): Promise<void> {
  const list = [...tensors].map(([name, tensor]) => ({ name, ...tensor, bytes: encode(tensor) }))
  if (shards === 1) await writeTensors(join(folder, 'model.safetensors'), list)
  else await writeShards(folder, list, shards)
  await writeSettings(folder, config)
}

/** What a model folder holds besides weights. */
export async function writeSettings(folder: string, config: Readonly<Record<string, unknown>>): Promise<void> {
  await writeJson(folder, 'config.json', config)
  await writeJson(folder, 'generation_config.json', { eos_token_id: endToken })
  await writeJson(folder, 'tokenizer.json', byteTokenizer())
}

async function writeShards(folder: string, tensors: readonly TestData[], shards: number): Promise<void> {
  const weightMap: Record<string, string> = {}
  for (let shard = 0; shard < shards; shard++) {
    const name = `model-0000${shard + 1}-of-0000${shards}.safetensors`
    const part = tensors.filter((_, i) => i % shards === shard)
    for (const tensor of part) weightMap[tensor.name] = name
    await writeTensors(join(folder, name), part)
  }
  await writeJson(folder, 'model.safetensors.index.json', { metadata: {}, weight_map: weightMap })
}

export interface TestData extends TensorPlan {
  readonly bytes: Uint8Array
}

export async function writeTensors(file: string, tensors: readonly TestData[]): Promise<void> {
  const plans = tensors.map(({ name, dtype, shape }) => ({ name, dtype, shape }))
  await writeSafetensors(
    file,
    plans,
    tensors.map(({ bytes }) => bytes),
  )
}

async function writeJson(folder: string, name: string, value: unknown): Promise<void> {
  await writeFile(join(folder, name), JSON.stringify(value))
}

function encode({ values, dtype }: TestTensor): Uint8Array {
  if (dtype === 'F32') return new Uint8Array(Float32Array.from(values).buffer)
  const bits = dtype === 'F16' ? Uint16Array.from(values, f32ToF16) : Uint16Array.from(values, bf16Bits)
  return new Uint8Array(bits.buffer)
}

function round(value: number, dtype: TestTensor['dtype']): number {
  if (dtype === 'F16') return f16ToF32(f32ToF16(Math.fround(value)))
  if (dtype === 'F32') return Math.fround(value)
  return new Float32Array(Uint32Array.of(bf16Bits(value) << 16).buffer)[0]!
}

/** Upper half of the f32, truncated: good enough for random weights. */
function bf16Bits(value: number): number {
  return new Uint32Array(Float32Array.of(value).buffer)[0]! >>> 16
}

/** Standard normal numbers (Box-Muller over mulberry32). */
function normalNumbers(seed: number): () => number {
  let state = seed | 0
  const uniform = (): number => {
    state = (state + 0x6d2b79f5) | 0
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state)
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32
  }
  return () => Math.sqrt(-2 * Math.log(1 - uniform())) * Math.cos(2 * Math.PI * uniform())
}

/** Byte b is token b, in the alphabet of byte-level BPE. */
function byteTokenizer(): unknown {
  const printable = (byte: number): boolean =>
    (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || (byte >= 174 && byte <= 255)
  let shifted = 256
  const alphabet = Array.from({ length: 256 }, (_, b) => String.fromCharCode(printable(b) ? b : shifted++))
  return {
    version: '1.0',
    truncation: null,
    padding: null,
    added_tokens: [{ id: endToken, content: '<end>', special: true, normalized: false }],
    normalizer: null,
    pre_tokenizer: { type: 'ByteLevel', add_prefix_space: false, trim_offsets: true, use_regex: false },
    post_processor: null,
    decoder: { type: 'ByteLevel', add_prefix_space: false, trim_offsets: true, use_regex: false },
    model: {
      type: 'BPE',
      unk_token: null,
      vocab: Object.fromEntries(alphabet.map((symbol, byte) => [symbol, byte])),
      merges: [],
    },
  }
}

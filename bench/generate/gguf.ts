/**
 * Writes a checkpoint of random numbers as GGUF, what llama.cpp reads: the same weights in the same blocks of 32 as the
 * ONNX file has (Q4_0 and Q8_0 are its codes with scales of 16 bits). Only for the shapes of this bench, whose
 * embeddings are tied.
 */
import { open } from 'node:fs/promises'
import {
  quantizedBlockSize as blockSize,
  openWeights,
  type QuantizedBits,
  quantizeMatrix,
  readTensor,
  type TensorEntry,
} from '../../src/onnx/index.ts'
import { f32ToF16 } from '../../src/tensor/float16.ts'
import type { WeightType } from './contract.ts'
import { GgufWriter } from './gguf-writer.ts'
import { maxPositions, type ShapeConfig } from './shapes.ts'

/** ggml_type */
const types = { f32: 0, f16: 1, int4: 2, int8: 8 } as const
type GgmlType = keyof typeof types

const bitsOf = { int4: 4, int8: 8 } as const satisfies Partial<Record<GgmlType, QuantizedBits>>

interface Placed {
  readonly name: string
  readonly entry: TensorEntry
  readonly type: GgmlType
  /** Heads whose rows are interleaved, see `interleaved`. */
  readonly heads?: number
}

/** Writes `file`; what was there is lost. */
export async function writeGguf(
  checkpoint: string,
  file: string,
  config: ShapeConfig,
  weights: WeightType,
): Promise<void> {
  const entries = await openWeights(checkpoint)
  const tensors = [...entries.values()].flatMap((entry) => placesOf(entry, config, weights))
  const writer = new GgufWriter(tensors.length)
  describe(writer, config)
  let offset = 0
  for (const { name, entry, type } of tensors) {
    writer.tensor(name, [...entry.shape].reverse(), types[type], offset)
    offset = padded(offset + bytesOf(entry, type))
  }
  const handle = await open(file, 'w')
  try {
    let position = 0
    const write = async (bytes: Uint8Array) => {
      await handle.write(bytes, 0, bytes.length, position)
      position = padded(position + bytes.length)
    }
    await write(writer.finish())
    for (const tensor of tensors) await write(await contentOf(tensor))
    await handle.truncate(position)
  } finally {
    await handle.close()
  }
}

/** Alignment of tensors, and of their beginning. */
const alignment = 32
const padded = (bytes: number): number => Math.ceil(bytes / alignment) * alignment

function describe(writer: GgufWriter, config: ShapeConfig): void {
  const { model_type: name, head_dim: headDim } = config
  writer.string('general.architecture', name)
  writer.string('general.name', 'random')
  const integers = {
    vocab_size: config.vocab_size,
    context_length: maxPositions,
    embedding_length: config.hidden_size,
    block_count: config.num_hidden_layers,
    feed_forward_length: config.intermediate_size,
    'attention.head_count': config.num_attention_heads,
    'attention.head_count_kv': config.num_key_value_heads,
    'attention.key_length': headDim,
    'attention.value_length': headDim,
    'rope.dimension_count': headDim,
  }
  for (const [key, value] of Object.entries(integers)) writer.integer(`${name}.${key}`, value)
  writer.float(`${name}.rope.freq_base`, config.rope_theta)
  writer.float(`${name}.attention.layer_norm_rms_epsilon`, config.rms_norm_eps)
  // It does not start without a tokenizer; nothing here turns tokens into text.
  writer.string('tokenizer.ggml.model', 'gpt2')
  const names = Array.from({ length: config.vocab_size }, (_, token) => `token${token}`)
  writer.strings('tokenizer.ggml.tokens', names)
  writer.strings('tokenizer.ggml.merges', [])
}

const outer: Readonly<Record<string, string>> = { 'model.norm': 'output_norm' }
const inner: Readonly<Record<string, string>> = {
  input_layernorm: 'attn_norm',
  post_attention_layernorm: 'ffn_norm',
  'self_attn.q_proj': 'attn_q',
  'self_attn.k_proj': 'attn_k',
  'self_attn.v_proj': 'attn_v',
  'self_attn.o_proj': 'attn_output',
  'self_attn.q_norm': 'attn_q_norm',
  'self_attn.k_norm': 'attn_k_norm',
  'mlp.gate_proj': 'ffn_gate',
  'mlp.up_proj': 'ffn_up',
  'mlp.down_proj': 'ffn_down',
}

/** What a tensor is called there, and how it is stored; the embedding is the last product too, stored as products are. */
function placesOf(entry: TensorEntry, config: ShapeConfig, weights: WeightType): Placed[] {
  const name = entry.name.replace(/\.weight$/, '')
  if (name === 'model.embed_tokens') {
    const embedding: Placed = { name: 'token_embd.weight', entry, type: weights === 'f32' ? 'f32' : 'f16' }
    return weights === 'f32' ? [embedding] : [embedding, { name: 'output.weight', entry, type: weights }]
  }
  const [, layer, part = ''] = name.match(/^model\.layers\.(\d+)\.(.+)$/) ?? []
  const theirs = layer === undefined ? outer[name] : `blk.${layer}.${inner[part]}`
  const heads = part === 'self_attn.q_proj' ? config.num_attention_heads : config.num_key_value_heads
  const isTurned = config.model_type === 'llama' && /^self_attn\.[qk]_proj$/.test(part)
  const type = entry.shape.length === 1 ? 'f32' : weights
  return [{ name: `${theirs}.weight`, entry, type, ...(isTurned && { heads }) }]
}

function bytesOf({ shape }: TensorEntry, type: GgmlType): number {
  const elements = shape.reduce((product, dim) => product * dim, 1)
  if (type === 'f32' || type === 'f16') return elements * (type === 'f32' ? 4 : 2)
  return (elements / blockSize) * blockBytes(bitsOf[type])
}

/** A scale in f16, then codes. */
const blockBytes = (bits: QuantizedBits): number => 2 + (blockSize * bits) / 8

async function contentOf({ entry, type, heads }: Placed): Promise<Uint8Array> {
  const plain = await readTensor(entry)
  const rows = entry.shape[0]!
  const values = heads === undefined ? plain : interleaved(plain, rows, heads)
  if (type === 'f32') return new Uint8Array(values.buffer, values.byteOffset, values.byteLength)
  if (type === 'f16') return halves(values)
  return blocksOf(values, rows, bitsOf[type])
}

/** Not `Uint16Array.from`, which first collects all numbers in a list. */
function halves(values: Float32Array): Uint8Array {
  const bits = new Uint16Array(values.length)
  for (let i = 0; i < bits.length; i++) bits[i] = f32ToF16(values[i]!)
  return new Uint8Array(bits.buffer)
}

/** Where llama.cpp turns neighbours, row 2i of a head is its row i, row 2i + 1 its row D / 2 + i. */
function interleaved(values: Float32Array, rows: number, heads: number): Float32Array {
  const [columns, headDim] = [values.length / rows, rows / heads]
  const result = new Float32Array(values.length)
  for (let row = 0; row < rows; row++) {
    const [head, i] = [Math.floor(row / headDim), row % headDim]
    const from = head * headDim + (i % 2) * (headDim / 2) + Math.floor(i / 2)
    result.set(values.subarray(from * columns, (from + 1) * columns), row * columns)
  }
  return result
}

function blocksOf(values: Float32Array, rows: number, bits: QuantizedBits): Uint8Array {
  const { codes, scales } = quantizeMatrix(values, rows, bits)
  const [size, codeBytes] = [blockBytes(bits), (blockSize * bits) / 8]
  const bytes = new Uint8Array(scales.length * size)
  for (let block = 0; block < scales.length; block++) {
    const [at, from] = [block * size, block * codeBytes]
    const scale = f32ToF16(scales[block]!)
    bytes[at] = scale & 0xff
    bytes[at + 1] = scale >> 8
    if (bits === 8) for (let i = 0; i < codeBytes; i++) bytes[at + 2 + i] = codes[from + i]! ^ 0x80
    else repack(codes.subarray(from, from + codeBytes), bytes.subarray(at + 2, at + size))
  }
  return bytes
}

/** From neighbours in a byte to element i beside element i + 16. */
function repack(codes: Uint8Array, target: Uint8Array): void {
  const code = (i: number): number => (codes[i >> 1]! >> (4 * (i % 2))) & 0xf
  for (let i = 0; i < target.length; i++) target[i] = code(i) | (code(i + target.length) << 4)
}

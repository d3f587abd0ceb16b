/** Writes small random Doge checkpoints for tests, with a byte-level tokenizer. */
import { mkdtemp, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { f16ToF32, f32ToF16 } from '../../tensor/float16.ts'
import { type TensorPlan, writeSafetensors } from '../safetensors-writer.ts'

export interface DogeSizes {
  readonly vocab: number
  readonly hidden: number
  readonly intermediate: number
  readonly layers: number
  readonly heads: number
  readonly kvHeads: number
  readonly headDim: number
  readonly window: number
  readonly attentionBias: boolean
  readonly mlpBias: boolean
  readonly tied: boolean
  /** True: importance is exp(A softplus(dt)), config key keep_window_size; false: without exp, key window_size. */
  readonly exponential: boolean
}

export interface DogeCheckpointOptions extends Partial<DogeSizes> {
  readonly dtype?: 'F32' | 'F16' | 'BF16'
  /** More than 1: sharded with an index. */
  readonly shards?: number
  readonly seed?: number
  /** Keys of config.json to add or replace; undefined removes. */
  readonly config?: Readonly<Record<string, unknown>>
  /** Changes the tensors before they are written. */
  readonly change?: (tensors: Map<string, TestTensor>) => void
}

export interface TestTensor {
  shape: number[]
  /** As the file holds them: rounded to its dtype. */
  values: Float32Array
  dtype: 'F32' | 'F16' | 'BF16'
}

export interface DogeCheckpoint {
  readonly folder: string
  readonly sizes: DogeSizes
  readonly tensors: ReadonlyMap<string, TestTensor>
}

const defaults: DogeSizes = {
  vocab: 260,
  hidden: 32,
  intermediate: 48,
  layers: 2,
  heads: 4,
  kvHeads: 2,
  headDim: 8,
  window: 16,
  attentionBias: true,
  mlpBias: false,
  tied: true,
  exponential: true,
}

/** Token 256 ends a text; 0 to 255 are bytes; others have no text. */
export const endToken = 256

export async function writeDogeCheckpoint(options: DogeCheckpointOptions = {}): Promise<DogeCheckpoint> {
  const { dtype = 'F32', shards = 1, seed = 1, config = {}, change, ...rest } = options
  const sizes = { ...defaults, ...rest }
  const folder = await mkdtemp(join(tmpdir(), 'kvasir-doge-'))
  const random = normalNumbers(seed)
  const tensors = new Map<string, TestTensor>()
  for (const [name, shape, mean, spread] of tensorList(sizes)) {
    const size = shape.reduce((product, dim) => product * dim, 1)
    const values = Float32Array.from({ length: size }, () => round(mean + spread * random(), dtype))
    tensors.set(name, { shape, values, dtype })
  }
  change?.(tensors)
  const list = [...tensors].map(([name, tensor]) => ({ name, ...tensor, bytes: encode(tensor) }))
  if (shards === 1) await writeTensors(join(folder, 'model.safetensors'), list)
  else await writeShards(folder, list, shards)
  await writeJson(folder, 'config.json', { ...configOf(sizes), ...config })
  await writeJson(folder, 'generation_config.json', { eos_token_id: endToken })
  await writeJson(folder, 'tokenizer.json', byteTokenizer())
  return { folder, sizes, tensors }
}

/** Name, shape, mean and spread. Spreads are as large as keeps logits of order 1, so that errors show. */
function tensorList(sizes: DogeSizes): [string, number[], number, number][] {
  const { vocab, hidden, intermediate, layers, heads, kvHeads, headDim, attentionBias, mlpBias, tied } = sizes
  const list: [string, number[], number, number][] = [['model.embed_tokens.weight', [vocab, hidden], 0, 1]]
  const linear = (name: string, out: number, features: number, bias: boolean): void => {
    list.push([`${name}.weight`, [out, features], 0, 1 / Math.sqrt(features)])
    if (bias) list.push([`${name}.bias`, [out], 0, 0.3])
  }
  for (let n = 0; n < layers; n++) {
    const layer = `model.layers.${n}`
    for (const norm of ['input', 'post_attention']) {
      list.push([`${layer}.${norm}_layernorm.weight`, [hidden], 1, 0.2])
      list.push([`${layer}.${norm}_residual`, [hidden], 1, 0.2])
    }
    linear(`${layer}.self_attn.q_proj`, heads * headDim, hidden, attentionBias)
    linear(`${layer}.self_attn.k_proj`, kvHeads * headDim, hidden, attentionBias)
    linear(`${layer}.self_attn.v_proj`, kvHeads * headDim, hidden, attentionBias)
    linear(`${layer}.self_attn.o_proj`, hidden, heads * headDim, attentionBias)
    linear(`${layer}.self_attn.dt_proj`, kvHeads, kvHeads * headDim, attentionBias)
    list.push([`${layer}.self_attn.A`, [kvHeads], 0, 0.7])
    for (const norm of ['q', 'k']) list.push([`${layer}.self_attn.${norm}_norm.weight`, [headDim], 1, 0.2])
    linear(`${layer}.mlp.gate_proj`, intermediate, hidden, mlpBias)
    linear(`${layer}.mlp.up_proj`, intermediate, hidden, mlpBias)
    linear(`${layer}.mlp.down_proj`, hidden, intermediate, mlpBias)
  }
  list.push(['model.norm.weight', [hidden], 1, 0.2])
  if (!tied) linear('lm_head', vocab, hidden, false)
  return list
}

function configOf(sizes: DogeSizes): Record<string, unknown> {
  return {
    architectures: ['DogeForCausalLM'],
    model_type: 'doge',
    vocab_size: sizes.vocab,
    hidden_size: sizes.hidden,
    intermediate_size: sizes.intermediate,
    num_hidden_layers: sizes.layers,
    num_attention_heads: sizes.heads,
    num_key_value_heads: sizes.kvHeads,
    head_dim: sizes.headDim,
    [sizes.exponential ? 'keep_window_size' : 'window_size']: sizes.window,
    attention_bias: sizes.attentionBias,
    mlp_bias: sizes.mlpBias,
    tie_word_embeddings: sizes.tied,
    rope_theta: 10000,
    hidden_act: 'silu',
    is_moe: false,
  }
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

/** Writes small random Doge checkpoints for tests, with a byte-level tokenizer. */
import { mkdtemp } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { randomTensors, type TensorSpread, type TestTensor, writeCheckpoint } from './checkpoint-files.ts'

export { endToken, type TestData, type TestTensor, writeTensors } from './checkpoint-files.ts'

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
  /** 0: no mixture of experts. */
  readonly experts: number
  readonly expertsPerToken: number
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
  experts: 0,
  expertsPerToken: 3,
}

export async function writeDogeCheckpoint(options: DogeCheckpointOptions = {}): Promise<DogeCheckpoint> {
  const { dtype = 'F32', shards = 1, seed = 1, config = {}, change, ...rest } = options
  const sizes = { ...defaults, ...rest }
  const folder = await mkdtemp(join(tmpdir(), 'kvasir-doge-'))
  const tensors = randomTensors(tensorList(sizes), dtype, seed)
  change?.(tensors)
  await writeCheckpoint(folder, { tensors, shards, config: { ...configOf(sizes), ...config } })
  return { folder, sizes, tensors }
}

/** Spreads are as large as keeps logits of order 1, so that errors show. */
function tensorList(sizes: DogeSizes): TensorSpread[] {
  const { vocab, hidden, intermediate, layers, heads, kvHeads, headDim, attentionBias, mlpBias, tied, experts } = sizes
  const list: TensorSpread[] = [['model.embed_tokens.weight', [vocab, hidden], 0, 1]]
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
    if (experts === 0) continue
    linear(`${layer}.mlp.router_gate`, 2 * Math.floor(Math.sqrt(experts)), hidden, false)
    for (const table of ['down', 'up']) list.push([`${layer}.mlp.${table}_embed.weight`, [experts, hidden], 0, 0.5])
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
    is_moe: sizes.experts > 0,
    ...(sizes.experts > 0 && { num_experts: sizes.experts, num_experts_per_tok: sizes.expertsPerToken }),
  }
}

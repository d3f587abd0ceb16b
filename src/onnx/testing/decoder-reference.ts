/**
 * Decoders in plain f64, written after their classes in transformers 5 (eager attention) and inheriting from one another
 * as they do there: what graphs, cuts and exports are compared with. They share no code with the builder.
 */
import type { DecoderCheckpoint, DecoderConfig, DecoderType } from './decoder-checkpoint.ts'
import { add, dot, geluTanh, matrixVector, rmsNorm, rotate, silu, softmax, type Vector } from './reference-math.ts'

/** Logits after each token, `[T][vocab]`. */
export function decoderLogits(checkpoint: DecoderCheckpoint, tokens: readonly number[]): Vector[] {
  const Model = models[checkpoint.config.model_type]
  return new Model(checkpoint).forward(tokens)
}

class Llama {
  protected readonly config: DecoderConfig
  readonly #tensors: DecoderCheckpoint['tensors']
  readonly #weights = new Map<string, Vector>()

  constructor({ config, tensors }: DecoderCheckpoint) {
    this.config = config
    this.#tensors = tensors
  }

  forward(tokens: readonly number[]): Vector[] {
    const { hidden_size: size, num_hidden_layers: numLayers } = this.config
    const table = this.weight('model.embed_tokens.weight')
    let stream = tokens.map((token) => this.scaleEmbedding(table.slice(token * size, (token + 1) * size)))
    for (let n = 0; n < numLayers; n++) stream = this.layer(n, stream)
    const head = this.config.tie_word_embeddings ? 'model.embed_tokens' : 'lm_head'
    return stream.map((x) => this.capLogits(this.linear(head, this.norm('model.norm', x))))
  }

  protected layer(n: number, stream: Vector[]): Vector[] {
    const prefix = `model.layers.${n}`
    const attended = this.attention(
      n,
      stream.map((x) => this.norm(`${prefix}.input_layernorm`, x)),
    )
    return stream.map((x, t) => {
      const middle = add(x, attended[t]!)
      return add(middle, this.mlp(`${prefix}.mlp`, this.norm(`${prefix}.post_attention_layernorm`, middle)))
    })
  }

  protected attention(n: number, inputs: Vector[]): Vector[] {
    const { num_attention_heads: numHeads, num_key_value_heads: numKvHeads, head_dim: headDim } = this.config
    const prefix = `model.layers.${n}.self_attn`
    const heads = inputs.map((x, t) => {
      const { q, k, v } = this.project(prefix, x)
      const turn = (vectors: Vector[]): Vector[] => vectors.map((head) => this.rotate(n, head, t))
      const normed = (name: string, vectors: Vector[]): Vector[] => vectors.map((head) => this.headNorm(name, head))
      return { q: turn(normed(`${prefix}.q_norm`, q)), k: turn(normed(`${prefix}.k_norm`, k)), v }
    })
    const window = this.window(n) ?? Number.POSITIVE_INFINITY
    return heads.map(({ q }, t) => {
      const output = Array.from({ length: numHeads }, (_, h) => {
        const kv = Math.floor(h / (numHeads / numKvHeads))
        const visible = heads.slice(0, t + 1).flatMap((past, j) => (j > t - window ? [past] : []))
        const weights = softmax(visible.map((past) => this.capScore(dot(q[h]!, past.k[kv]!) * this.scaling())))
        return Array.from({ length: headDim }, (_, d) =>
          visible.reduce((sum, past, i) => sum + weights[i]! * past.v[kv]![d]!, 0),
        )
      })
      return this.linear(`${prefix}.o_proj`, output.flat())
    })
  }

  protected project(prefix: string, x: Vector): { q: Vector[]; k: Vector[]; v: Vector[] } {
    const of = (name: string): Vector[] => this.heads(this.linear(`${prefix}.${name}_proj`, x))
    return { q: of('q'), k: of('k'), v: of('v') }
  }

  protected mlp(prefix: string, x: Vector): Vector {
    const gate = this.linear(`${prefix}.gate_proj`, x)
    const up = this.linear(`${prefix}.up_proj`, x)
    return this.linear(
      `${prefix}.down_proj`,
      gate.map((value, i) => this.activate(value) * up[i]!),
    )
  }

  protected heads(x: Vector): Vector[] {
    const { head_dim: size } = this.config
    return Array.from({ length: x.length / size }, (_, h) => x.slice(h * size, (h + 1) * size))
  }

  protected linear(name: string, x: Vector): Vector {
    const rows = this.#tensors.get(`${name}.weight`)!.shape[0]!
    const y = matrixVector(this.weight(`${name}.weight`), rows, x)
    return this.#tensors.has(`${name}.bias`) ? add(y, this.weight(`${name}.bias`)) : y
  }

  protected norm(name: string, x: Vector): Vector {
    return rmsNorm(x, this.weight(`${name}.weight`), this.config.rms_norm_eps)
  }

  protected weight(name: string): Vector {
    const weight = this.#weights.get(name) ?? Array.from(this.#tensors.get(name)!.values)
    this.#weights.set(name, weight)
    return weight
  }

  protected frequencies(theta: unknown, width = this.config.head_dim): Vector {
    return Array.from({ length: width / 2 }, (_, i) => 1 / (theta as number) ** ((2 * i) / width))
  }

  protected rotate(_layer: number, head: Vector, position: number): Vector {
    return rotate(head, position, this.frequencies(this.config.rope_theta))
  }

  protected scaling(): number {
    return this.config.head_dim ** -0.5
  }

  protected window(_layer: number): number | undefined {
    return undefined
  }

  protected activate(x: number): number {
    return silu(x)
  }

  protected headNorm(_name: string, head: Vector): Vector {
    return head
  }

  protected scaleEmbedding(x: Vector): Vector {
    return x
  }

  protected capScore(score: number): number {
    return score
  }

  protected capLogits(logits: Vector): Vector {
    return logits
  }
}

class Mistral extends Llama {
  protected override window(): number | undefined {
    return (this.config.sliding_window as number | null | undefined) ?? undefined
  }
}

class Qwen2 extends Llama {
  protected override window(layer: number): number | undefined {
    const {
      use_sliding_window: isOn,
      sliding_window: window,
      max_window_layers: first,
      layer_types: types,
    } = this.config
    if (isOn !== true) return undefined
    const slides = types ? (types as string[])[layer] === 'sliding_attention' : layer >= (first as number)
    return slides ? (window as number) : undefined
  }
}

class Qwen3 extends Qwen2 {
  protected override headNorm(name: string, head: Vector): Vector {
    return this.norm(name, head)
  }
}

class Gemma2 extends Llama {
  protected override norm(name: string, x: Vector): Vector {
    const weight = this.weight(`${name}.weight`).map((value) => 1 + value)
    return rmsNorm(x, weight, this.config.rms_norm_eps)
  }

  protected override layer(n: number, stream: Vector[]): Vector[] {
    const prefix = `model.layers.${n}`
    const attended = this.attention(
      n,
      stream.map((x) => this.norm(`${prefix}.input_layernorm`, x)),
    )
    return stream.map((x, t) => {
      const middle = add(x, this.norm(`${prefix}.post_attention_layernorm`, attended[t]!))
      const fed = this.mlp(`${prefix}.mlp`, this.norm(`${prefix}.pre_feedforward_layernorm`, middle))
      return add(middle, this.norm(`${prefix}.post_feedforward_layernorm`, fed))
    })
  }

  protected override activate(x: number): number {
    return geluTanh(x)
  }

  protected override scaling(): number {
    return (this.config.query_pre_attn_scalar as number) ** -0.5
  }

  protected override window(layer: number): number | undefined {
    return layer % 2 === 0 ? (this.config.sliding_window as number) : undefined
  }

  protected override scaleEmbedding(x: Vector): Vector {
    return x.map((value) => value * this.config.hidden_size ** 0.5)
  }

  protected override capScore(score: number): number {
    return cap(score, this.config.attn_logit_softcapping)
  }

  protected override capLogits(logits: Vector): Vector {
    return logits.map((logit) => cap(logit, this.config.final_logit_softcapping))
  }
}

class Gemma3 extends Gemma2 {
  protected override headNorm(name: string, head: Vector): Vector {
    return this.norm(name, head)
  }

  #isSliding(layer: number): boolean {
    return (layer + 1) % (this.config.sliding_window_pattern as number) !== 0
  }

  protected override window(layer: number): number | undefined {
    return this.#isSliding(layer) ? (this.config.sliding_window as number) : undefined
  }

  protected override rotate(layer: number, head: Vector, position: number): Vector {
    const { rope_local_base_freq: local, rope_theta: theta, rope_scaling: scaling } = this.config
    if (this.#isSliding(layer)) return rotate(head, position, this.frequencies(local))
    const { factor } = scaling as { factor: number }
    return rotate(head, position / factor, this.frequencies(theta))
  }
}

class Phi3 extends Mistral {
  protected override project(prefix: string, x: Vector): { q: Vector[]; k: Vector[]; v: Vector[] } {
    const { num_attention_heads: numHeads, num_key_value_heads: numKvHeads } = this.config
    const heads = this.heads(this.linear(`${prefix}.qkv_proj`, x))
    const end = numHeads + numKvHeads
    return { q: heads.slice(0, numHeads), k: heads.slice(numHeads, end), v: heads.slice(end) }
  }

  protected override mlp(prefix: string, x: Vector): Vector {
    const both = this.linear(`${prefix}.gate_up_proj`, x)
    const [gate, up] = [both.slice(0, both.length / 2), both.slice(both.length / 2)]
    return this.linear(
      `${prefix}.down_proj`,
      up.map((value, i) => value * this.activate(gate[i]!)),
    )
  }

  protected override rotate(_layer: number, head: Vector, position: number): Vector {
    const width = this.config.head_dim * (this.config.partial_rotary_factor as number)
    return rotate(head, position, this.frequencies(this.config.rope_theta, width))
  }
}

class SmolLm3 extends Llama {
  protected override rotate(layer: number, head: Vector, position: number): Vector {
    const { no_rope_layers: list, no_rope_layer_interval: interval } = this.config
    const rotates = list ? (list as number[])[layer] === 1 : (layer + 1) % (interval as number) !== 0
    return rotates ? super.rotate(layer, head, position) : head
  }
}

function cap(value: number, limit: unknown): number {
  return typeof limit === 'number' ? limit * Math.tanh(value / limit) : value
}

const models: Readonly<Record<DecoderType, typeof Llama>> = {
  llama: Llama,
  mistral: Mistral,
  qwen2: Qwen2,
  qwen3: Qwen3,
  gemma2: Gemma2,
  gemma3_text: Gemma3,
  phi3: Phi3,
  smollm3: SmolLm3,
}

/**
 * A decoder of the Llama family in plain f64, written after its class in transformers 5 (eager attention): what the others
 * of decoder-reference.ts inherit from, as they do there. It shares no code with the builder.
 */
import type { DecoderCheckpoint, DecoderConfig } from './decoder-checkpoint.ts'
import { add, dot, matrixVector, rmsNorm, rotate, silu, softmax, type Vector } from './reference-math.ts'

export class LlamaReference {
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

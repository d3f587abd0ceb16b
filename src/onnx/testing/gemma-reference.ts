/** Gemma 2 and Gemma 3 for decoder-reference.ts. */
import { LlamaReference } from './llama-reference.ts'
import { add, geluTanh, rmsNorm, rotate, type Vector } from './reference-math.ts'

export class Gemma2Reference extends LlamaReference {
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

export class Gemma3Reference extends Gemma2Reference {
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

function cap(value: number, limit: unknown): number {
  return typeof limit === 'number' ? limit * Math.tanh(value / limit) : value
}

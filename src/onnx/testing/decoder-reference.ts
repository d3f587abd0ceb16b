/**
 * Decoders in plain f64, written after their classes in transformers 5 (eager attention) and inheriting from one another
 * as they do there: what graphs, cuts and exports are compared with. They share no code with the builder.
 */
import type { DecoderCheckpoint, DecoderType } from './decoder-checkpoint.ts'
import { Gemma2Reference, Gemma3Reference } from './gemma-reference.ts'
import { LlamaReference } from './llama-reference.ts'
import { rotate, type Vector } from './reference-math.ts'

/** Logits after each token, `[T][vocab]`. */
export function decoderLogits(checkpoint: DecoderCheckpoint, tokens: readonly number[]): Vector[] {
  const Model = models[checkpoint.config.model_type]
  return new Model(checkpoint).forward(tokens)
}

class Mistral extends LlamaReference {
  protected override window(): number | undefined {
    return (this.config.sliding_window as number | null | undefined) ?? undefined
  }
}

class Qwen2 extends LlamaReference {
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

class SmolLm3 extends LlamaReference {
  protected override rotate(layer: number, head: Vector, position: number): Vector {
    const { no_rope_layers: list, no_rope_layer_interval: interval } = this.config
    const rotates = list ? (list as number[])[layer] === 1 : (layer + 1) % (interval as number) !== 0
    return rotates ? super.rotate(layer, head, position) : head
  }
}

const models: Readonly<Record<DecoderType, typeof LlamaReference>> = {
  llama: LlamaReference,
  mistral: Mistral,
  qwen2: Qwen2,
  qwen3: Qwen3,
  gemma2: Gemma2Reference,
  gemma3_text: Gemma3Reference,
  phi3: Phi3,
  smollm3: SmolLm3,
}

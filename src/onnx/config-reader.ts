/**
 * Typed reading of config.json. It remembers which keys were asked for, so that a model with a key that Kvasir does
 * not know is refused instead of computed wrongly.
 */
import { describe } from '../tensor/check.ts'
import { KvasirError } from '../tensor/error.ts'

/** Keys that say nothing about the numbers of a forward pass, or that other layers read (positions, generation). */
const otherKeys = new Set(
  `_name_or_path architectures model_type transformers_version torch_dtype dtype use_cache initializer_range
  bos_token_id eos_token_id pad_token_id sep_token_id decoder_start_token_id return_dict output_hidden_states
  output_attentions torchscript chunk_size_feed_forward is_encoder_decoder is_decoder id2label label2id problem_type
  finetuning_task attention_dropout hidden_dropout max_position_embeddings rope_theta rope_scaling rope_parameters
  partial_rotary_factor original_max_position_embeddings pretraining_tp tokenizer_class task_specific_params
  _attn_implementation _attn_implementation_autoset attn_implementation auto_map cache_implementation
  resid_pdrop embd_pdrop embedding_dropout is_llama_config transformers.js_config unsloth_fixed unsloth_version`.split(
    /\s+/,
  ),
)

export class ConfigReader {
  readonly file: string
  readonly #config: Readonly<Record<string, unknown>>
  readonly #read = new Set<string>()

  constructor(config: unknown, file: string) {
    if (typeof config !== 'object' || config === null || Array.isArray(config)) {
      throw new KvasirError('invalid-file', 'onnx', `${file}: expected a JSON object, got ${describe(config)}`)
    }
    this.#config = config as Record<string, unknown>
    this.file = file
  }

  /** The value of a key; null counts as absent, as in transformers. */
  value(key: string): unknown {
    this.#read.add(key)
    return Object.hasOwn(this.#config, key) ? (this.#config[key] ?? undefined) : undefined
  }

  has(key: string): boolean {
    return this.value(key) !== undefined
  }

  /** Whether the key is written out as null, which for some classes differs from leaving it out. */
  isNull(key: string): boolean {
    return Object.hasOwn(this.#config, key) && this.#config[key] === null
  }

  /** The object under a key, as a config of its own. */
  nested(key: string): ConfigReader {
    return new ConfigReader(this.value(key), `${this.file} (${key})`)
  }

  /** All of config.json, for what other layers read from it. */
  get all(): Readonly<Record<string, unknown>> {
    return this.#config
  }

  /** A positive integer. */
  count(key: string, fallback?: number): number {
    const value = this.value(key) ?? fallback
    if (isInteger(value, 1)) return value
    throw this.invalid(key, 'a positive integer', value)
  }

  /** An integer of at least 0. */
  index(key: string, fallback: number): number {
    const value = this.value(key) ?? fallback
    if (isInteger(value, 0)) return value
    throw this.invalid(key, 'an integer of at least 0', value)
  }

  /** One of some words. */
  choice<T extends string>(key: string, choices: readonly T[], fallback: T): T {
    const value = this.value(key) ?? fallback
    if (choices.includes(value as T)) return value as T
    throw this.unsupported(key, choices, value)
  }

  /** One item for each layer, or undefined when the key is absent; items beyond the last layer are ignored. */
  perLayer(key: string, numLayers: number, choices: readonly unknown[]): unknown[] | undefined {
    const list = this.value(key)
    if (list === undefined) return undefined
    if (!Array.isArray(list) || list.length < numLayers) throw this.invalid(key, `a list of ${numLayers} items`, list)
    for (const item of list.slice(0, numLayers)) {
      if (!choices.includes(item)) throw this.unsupported(key, choices, item)
    }
    return list.slice(0, numLayers)
  }

  /** A finite number above 0. */
  positive(key: string, fallback: number): number {
    const value = this.value(key) ?? fallback
    if (typeof value === 'number' && Number.isFinite(value) && value > 0) return value
    throw this.invalid(key, 'a number above 0', value)
  }

  /** A number above 0 or, written out as null or by default, none. */
  optional(key: string, fallback: number | null): number | undefined {
    if (this.value(key) !== undefined) return this.positive(key, 1)
    return this.isNull(key) ? undefined : (fallback ?? undefined)
  }

  flag(key: string, fallback: boolean): boolean {
    const value = this.value(key) ?? fallback
    if (typeof value === 'boolean') return value
    throw this.invalid(key, 'true or false', value)
  }

  /** Refuses the model unless the key is absent or has one of the supported values. */
  supports(key: string, ...supported: readonly unknown[]): void {
    const value = this.value(key)
    if (value === undefined || supported.includes(value)) return
    throw this.unsupported(key, supported, value)
  }

  /** Refuses the model when its config has keys that nobody reads. */
  refuseUnknown(): void {
    const unknown = Object.keys(this.#config).filter((key) => !this.#read.has(key) && !otherKeys.has(key))
    if (unknown.length === 0) return
    const list = unknown
      .slice(0, 5)
      .map((key) => JSON.stringify(key))
      .join(', ')
    throw new KvasirError('unsupported', 'onnx', `${this.file}: expected only keys that are understood, got ${list}`)
  }

  /** The error for a value that transformers may know and Kvasir doesn't. */
  unsupported(key: string, supported: readonly unknown[], value: unknown): KvasirError {
    const list = supported.length ? supported.map((item) => JSON.stringify(item)).join(' or ') : 'no value'
    const message = `${this.file}: expected ${list} for "${key}", got ${describe(value)}`
    return new KvasirError('unsupported', 'onnx', message)
  }

  /** The error for a key whose value is wrong. */
  invalid(key: string, expected: string, value: unknown): KvasirError {
    return new KvasirError(
      'invalid-file',
      'onnx',
      `${this.file}: expected ${expected} for "${key}", got ${describe(value)}`,
    )
  }
}

function isInteger(value: unknown, min: number): value is number {
  return Number.isSafeInteger(value) && (value as number) >= min && (value as number) < 2 ** 31
}

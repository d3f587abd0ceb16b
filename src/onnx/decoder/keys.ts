/** Keys of config.json, as transformers names them. */

/** What every decoder of the Llama family says of its sizes. */
export interface DecoderSizes {
  readonly vocab_size: number
  readonly hidden_size: number
  readonly intermediate_size: number
  readonly num_hidden_layers: number
  readonly num_attention_heads: number
  readonly num_key_value_heads: number
  readonly head_dim: number
  readonly rms_norm_eps: number
}

/** What config.json says of published models, as far as attention and its cache go. */
export const llama = {
  model_type: 'llama',
  ...{ num_hidden_layers: 32, num_attention_heads: 32, num_key_value_heads: 8, hidden_size: 4096 },
}
export const gemma2 = {
  ...{ model_type: 'gemma2', num_hidden_layers: 42, num_attention_heads: 16, num_key_value_heads: 8 },
  ...{ hidden_size: 3584, head_dim: 256, sliding_window: 4096 },
}

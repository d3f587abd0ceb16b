/** The places of norms in a layer, under the names of the checkpoints. */
import type { NormPlaces } from './config.ts'

/** Before each block. Despite its name post_attention_layernorm stands before the feed-forward block. */
export const llamaNorms: NormPlaces = {
  beforeAttention: 'input_layernorm',
  beforeFeedForward: 'post_attention_layernorm',
}

/** Around each block. */
export const gemmaNorms: NormPlaces = {
  beforeAttention: 'input_layernorm',
  afterAttention: 'post_attention_layernorm',
  beforeFeedForward: 'pre_feedforward_layernorm',
  afterFeedForward: 'post_feedforward_layernorm',
}

/** Both ends of a decoder: from tokens to the residual stream, and from that to logits. */
import { linear, lookUp } from '../blocks.ts'
import type { GraphBuilder } from '../builder.ts'
import { sameTensor } from '../weights.ts'

const embedding = 'model.embed_tokens.weight'

/** `[T, hiddenSize]` from `[T]`. */
export function embedTokens(graph: GraphBuilder, tokens: string, sizes: VocabularySizes): string {
  return lookUp(graph, embedding, tokens, { rows: sizes.vocabSize, columns: sizes.hiddenSize, shape: ['T'] })
}

export interface VocabularySizes {
  readonly vocabSize: number
  readonly hiddenSize: number
  /** tie_word_embeddings */
  readonly tied: boolean
}

/** Logits `[T, vocabSize]` from normed hidden states. */
export async function projectLogits(graph: GraphBuilder, x: string, sizes: VocabularySizes): Promise<string> {
  const { vocabSize, hiddenSize, tied } = sizes
  const projection = tied && (await usesEmbedding(graph)) ? 'model.embed_tokens' : 'lm_head'
  return linear(graph, x, projection, { inFeatures: hiddenSize, outFeatures: vocabSize, bias: false })
}

/** As transformers 5: a checkpoint that claims tied embeddings but stores another lm_head means that lm_head. */
async function usesEmbedding({ weights }: GraphBuilder): Promise<boolean> {
  const head = weights.get('lm_head.weight')
  const table = weights.get(embedding)
  return !head || (table !== undefined && (await sameTensor(head, table)))
}

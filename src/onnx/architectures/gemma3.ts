/** Gemma 3 from 4B on: the text model of a checkpoint that also sees. Images are not read. */
import type { Architecture } from './contract.ts'
import { gemma3_text } from './gemma3_text.ts'

export const gemma3: Architecture = (config) => {
  const { spec, buildGraph } = gemma3_text(config.nested('text_config'))
  return {
    spec,
    buildGraph: (graph) => {
      // Before and since version 4.52 of transformers.
      graph.renameWeights({ 'language_model.': '', 'model.language_model.': 'model.' })
      return buildGraph(graph)
    },
  }
}

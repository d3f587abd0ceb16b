/** Gemma 3 from 4B on: the text model of a checkpoint that also sees. Images are not read. */
import { ConfigReader } from '../config-reader.ts'
import type { Architecture } from './contract.ts'
import { gemma3_text } from './gemma3_text.ts'

export const gemma3: Architecture = (config) => {
  const { all, file } = config.nested('text_config')
  // Its model_type, which may be left out, says what absent keys mean.
  const text = { ...all, model_type: 'gemma3_text' }
  const { spec, buildGraph } = gemma3_text(new ConfigReader(text, file))
  return {
    spec: { ...spec, positions: text },
    buildGraph: (graph) => {
      // Before and since version 4.52 of transformers.
      graph.renameWeights({ 'language_model.': '', 'model.language_model.': 'model.' })
      return buildGraph(graph)
    },
  }
}

/** What a decoder is given and gives back in each step: tokens, mask, positions, past and present; and their lengths. */
import { dataTypes } from '../../schema.ts'
import type { PublishedWriter } from './writer.ts'

/** Inputs of step graphs and past keys and values, as all styles but GPT-2's have them. */
export function stepInputs(w: PublishedWriter, hasPositions: boolean, numKvHeads = w.settings.numKvHeads): void {
  const { layers, headDim } = w.settings
  w.input('input_ids', dataTypes.int64, ['batch_size', 'sequence_length'])
  w.input('attention_mask', dataTypes.int64, ['batch_size', 'total_sequence_length'])
  if (hasPositions) w.input('position_ids', dataTypes.int64, ['batch_size', 'sequence_length'])
  for (let layer = 0; layer < layers; layer++) {
    for (const part of ['key', 'value']) {
      const axes = (length: string) => ['batch_size', numKvHeads, length, headDim]
      w.input(`past_key_values.${layer}.${part}`, w.float, axes('past_sequence_length'))
      w.output(`present.${layer}.${part}`, w.float, axes('total_sequence_length'))
    }
  }
}

export function state(layer: number): { past: string[]; present: string[] } {
  return {
    past: [`past_key_values.${layer}.key`, `past_key_values.${layer}.value`],
    present: [`present.${layer}.key`, `present.${layer}.value`],
  }
}

/** Sizes of a step as scalars: new tokens and all tokens. */
export function stepLengths(w: PublishedWriter): { fresh: string; total: string } {
  const size = (name: string): string =>
    w.node('Gather', [w.node('Shape', [name]), w.scalar(1)], undefined, { attributes: { axis: { int: 0 } } })
  return { fresh: size('input_ids'), total: size('attention_mask') }
}

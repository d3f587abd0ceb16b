/** The part of config.json that positions are read from, for models whose layers differ in them. */
import type { ConfigReader } from '../config-reader.ts'

const keys = [
  'rope_theta',
  'rope_scaling',
  'rope_parameters',
  'partial_rotary_factor',
  'max_position_embeddings',
  'original_max_position_embeddings',
]

type Source = Readonly<Record<string, unknown>>

/** Without what tells layers apart: it holds for every layer that it is used for. `changes` replace keys. */
export function rotarySource({ all }: ConfigReader, changes: Source): Source {
  return { ...Object.fromEntries(keys.filter((key) => key in all).map((key) => [key, all[key]])), ...changes }
}

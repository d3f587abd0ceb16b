/** What takes part in the bench: a model that was loaded, and one sequence of it. */
import { createRandom } from '../../src/kernels/cases.ts'

export interface OpenModel {
  /** What ran, for people. */
  readonly description: string
  /** Packages that take part: `{ 'onnxruntime-node': '1.30.0' }` */
  readonly versions: Readonly<Record<string, string>>
  /** Makes the cache of the sequence hold random keys and values for this many tokens, whatever it held. */
  fill(tokens: number): void | Promise<void>
  /** Tokens that the sequence has. */
  held(): number
  /** Feeds tokens after those that are held. Returns the logits of the last, `[vocab]`. */
  feed(tokens: readonly number[]): Promise<Float32Array>
  /** The same without handing out logits, for those to whom that is work of its own. */
  advance?(tokens: readonly number[]): Promise<void>
}

export interface OpenOptions {
  readonly folder: string
  /** The ONNX file in it. */
  readonly file: string
  /** What transformers.js calls the type of its weights. */
  readonly dtype: 'fp32' | 'int8' | 'q4'
  readonly threads: number
  readonly window: number
  /** Tokens that the sequence will hold at most. */
  readonly room: number
  /** The same weights for llama.cpp, where it takes part. */
  readonly gguf?: string
}

/** Random numbers in [-1, 1) that are cheap to make many of. */
export function randomValues(size: number): Float32Array {
  const random = createRandom(size)
  const block = Float32Array.from({ length: Math.min(size, 65_521) }, () => 2 * random() - 1)
  const values = new Float32Array(size)
  for (let at = 0; at < size; at += block.length) values.set(block.subarray(0, size - at), at)
  return values
}

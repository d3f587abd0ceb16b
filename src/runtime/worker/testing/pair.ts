/** A model in a thread of its own, and the same in this thread. */
import { rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { afterAll, beforeAll } from 'vitest'
import { type DogeCheckpoint, writeDogeCheckpoint } from '../../../onnx/testing/doge-checkpoint.ts'
import type { CausalLM, GenerateOptions, StreamEvent } from '../../contract.ts'
import { loadModel as loadHere } from '../../load-model.ts'
import { loadModel } from '../../open-model.ts'

export interface Pair {
  readonly checkpoint: DogeCheckpoint
  readonly here: CausalLM
  readonly there: CausalLM
}

export const prompt = Array.from({ length: 20 }, (_, i) => (i * 37 + 5) % 250)

/** To be called once in a file of tests; `use` gets both before the first of them. */
export function usePair(use: (pair: Pair) => void): void {
  let pair: Pair
  beforeAll(async () => {
    const checkpoint = await writeDogeCheckpoint()
    const template = '{% for m in messages %}{{ m.content }}{% endfor %}'
    await writeFile(join(checkpoint.folder, 'chat_template.jinja'), template)
    const options = { threads: 1, chunkSize: 8, policy: 'full' } as const
    const [here, there] = [await loadHere(checkpoint.folder, options), await loadModel(checkpoint.folder, options)]
    pair = { checkpoint, here, there }
    use(pair)
  })
  afterAll(async () => {
    await pair.here.dispose()
    await pair.there.dispose()
    await rm(pair.checkpoint.folder, { recursive: true })
  })
}

export async function collectEvents(model: CausalLM, options: GenerateOptions): Promise<StreamEvent[]> {
  const all: StreamEvent[] = []
  for await (const event of model.stream(prompt, options)) all.push(event)
  return all
}

/**
 * What makes a model this model and no other, in 32 hexadecimal digits: who saved states or shares them by it can tell
 * whether they fit.
 *
 * A fingerprint covers the graph with every node, attribute and small constant (quantization included), config.json, and
 * every byte of every file of weights: rows that were computed with other weights never pass for one's own. Files are read
 * once, when a fingerprint is first wanted (for a saved cache or for shared prefixes), and again after they have changed:
 * file-digest.ts. Where files lie plays no part, nor do tokenizer, threads and backend.
 *
 * The identity of weights, which every load tells, samples them instead: two fine-tunings of one model differ in nearly
 * all weights, so in the samples too; a file of which a few single weights were changed by hand is not told from the
 * original. What goes by it (a learned scorer) would then rank by weights that are nearly right.
 */
import { createHash } from 'node:crypto'
import { open } from 'node:fs/promises'
import { join } from 'node:path'
import { encodeModel, type OnnxTensor } from '../onnx/index.ts'
import type { ModelSource } from './model-source.ts'
import { digestOf } from './quantized-cache.ts'

/** Raised when a state of before means something else now. */
const formatVersion = 2
const samples = 64
const sampleBytes = 4096

/** @param root the folder that locations of weights are relative to */
export async function modelFingerprint({ model, config }: ModelSource, root: string): Promise<string> {
  const graph = model.graph!
  const identities = new Map<string, string>()
  for (const location of new Set(graph.initializer.map(locationOf))) {
    if (location !== undefined) identities.set(location, await digestOf(join(root, location)))
  }
  const initializer = graph.initializer.map((tensor) => ({
    ...tensor,
    externalData: tensor.externalData.map((entry) =>
      entry.key === 'location' ? { ...entry, value: identities.get(entry.value ?? '') ?? '' } : entry,
    ),
  }))
  const hash = createHash('sha256').update(`kvasir ${formatVersion}\n`)
  hash.update(JSON.stringify(config))
  hash.update(encodeModel({ ...model, graph: { ...graph, initializer } }))
  return hash.digest('hex').slice(0, 32)
}

/**
 * What tells config and weights of a model from others, however they are quantized for use and whatever graph is built of
 * them: what was learned from a model holds for it in all widths.
 */
export async function weightsIdentity({ plain, config }: ModelSource, root: string): Promise<string> {
  const identities: string[] = []
  for (const location of new Set(plain.graph!.initializer.map(locationOf))) {
    if (location !== undefined) identities.push(await fileIdentity(join(root, location)))
  }
  const hash = createHash('sha256').update(JSON.stringify(config))
  return hash.update(identities.sort().join('\n')).digest('hex').slice(0, 32)
}

function locationOf({ externalData }: OnnxTensor): string | undefined {
  return externalData.find(({ key }) => key === 'location')?.value
}

/** Size and evenly spread samples, first and last bytes included. */
async function fileIdentity(path: string): Promise<string> {
  const file = await open(path)
  try {
    const { size } = await file.stat()
    const hash = createHash('sha256').update(`${size}\n`)
    const bytes = Buffer.alloc(sampleBytes)
    const last = Math.max(0, size - sampleBytes)
    for (let n = 0; n < samples; n++) {
      const { bytesRead } = await file.read(bytes, 0, sampleBytes, Math.floor((last * n) / (samples - 1)))
      hash.update(bytes.subarray(0, bytesRead))
    }
    return hash.digest('hex')
  } finally {
    await file.close()
  }
}

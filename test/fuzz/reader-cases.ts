/** The readers that are fuzzed: a sound folder, how one of its files is damaged, and what is read. */
import { mkdir, mkdtemp, readFile, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { pickFrom } from '../../src/kernels/cases/random.ts'
import { cutModel, decodeModel, encodeModel, type OnnxModel, openOnnxFolder } from '../../src/onnx/index.ts'
import { writeSettings } from '../../src/onnx/testing/checkpoint-files.ts'
import { decoderTypes, writeDecoderCheckpoint } from '../../src/onnx/testing/decoder-checkpoint.ts'
import { writeDogeCheckpoint } from '../../src/onnx/testing/doge-checkpoint.ts'
import { hybridAttention } from '../../src/onnx/testing/published/hybrid.ts'
import { plainDecoder } from '../../src/onnx/testing/published/scaffold.ts'
import { createCustom, createDecoder } from '../../src/onnx/testing/published/styles.ts'
import { cacheShape } from '../../src/runtime/cache-shape.ts'
import { readGenerationDefaults } from '../../src/runtime/generation-config.ts'
import { readOptionalJson } from '../../src/runtime/json-file.ts'
import { openSource } from '../../src/runtime/model-source.ts'
import { openTokenizer } from '../../src/runtime/tokenizer.ts'
import { KvasirError } from '../../src/tensor/error.ts'
import { damagedBytes, mutated } from './mutate.ts'

export interface Reader {
  readonly name: string
  /** Sound; is copied. */
  readonly folder: string
  readonly isTemporary: boolean
  /** Damages a file; the result makes it sound again. */
  readonly spoil: (random: () => number, folder: string) => Promise<() => Promise<void>>
  readonly read: (folder: string) => Promise<unknown>
}

const small = { hiddenSize: 32, intermediateSize: 32, layers: 2 }
const published = 'onnx/model.onnx'

export async function readers(): Promise<Reader[]> {
  const models: Record<string, OnnxModel> = {
    groupQuery: createDecoder('genai, LongRoPE', small),
    writtenOut: createDecoder('Llama, written out', small),
    merged: createDecoder('merged decoder', small),
    bloom: createDecoder('BLOOM', { ...small, hiddenSize: 64 }),
    hybrid: createCustom((w) => plainDecoder(w, hybridAttention(w, { attention: [1], masks: true })), { layers: 2 }),
  }
  const all: Reader[] = []
  for (const [name, model] of Object.entries(models)) {
    const folder = await mkdtemp(join(tmpdir(), 'kvasir-fuzz-onnx-'))
    await mkdir(dirname(join(folder, published)), { recursive: true })
    await writeFile(join(folder, published), encodeModel(model))
    await writeSettings(folder, { model_type: 'test' })
    const spoil: Reader['spoil'] = (random, home) => withFile(home, published, (bytes) => spoilGraph(random, bytes))
    all.push({ name, folder, isTemporary: true, spoil, read: readGraph })
  }
  const checkpoints = [
    ...(await Promise.all(decoderTypes.map((type) => writeDecoderCheckpoint(type)))),
    await writeDogeCheckpoint(),
  ]
  for (const [i, { folder }] of checkpoints.entries()) {
    const spoil: Reader['spoil'] = (random, home) => spoilCheckpoint(random, home)
    all.push({ name: decoderTypes[i] ?? 'doge', folder, isTemporary: true, spoil, read: readCheckpoint })
  }
  const tokenizer = { spoil: spoilTokenizer, read: readTokenizer }
  all.push({ name: 'tokenizer', folder: checkpoints[0]!.folder, isTemporary: false, ...tokenizer })
  all.push({ name: 'kvasir-tiny', folder: 'models/kvasir-tiny', isTemporary: false, ...tokenizer })
  return all.toReversed() // folders that are used twice are copied before they go
}

async function withFile(
  folder: string,
  name: string,
  change: (bytes: Buffer) => Uint8Array,
): Promise<() => Promise<void>> {
  const file = join(folder, name)
  const sound = await readFile(file)
  await writeFile(file, change(sound))
  return () => writeFile(file, sound)
}

/** Bytes of the structure, or fields of the decoded messages. */
function spoilGraph(random: () => number, bytes: Uint8Array): Uint8Array {
  if (random() < 0.3) return damagedBytes(random, bytes, 30_000)
  return encodeModel(mutated(random, decodeModel(bytes), true) as OnnxModel)
}

async function readGraph(folder: string): Promise<void> {
  // What a damaged mask computes is for ONNX Runtime to say.
  const openGraph = () => Promise.reject(new KvasirError('unsupported', 'onnx', 'masks are not run here'))
  const { model, ends } = await openOnnxFolder(folder, {}, { openGraph })
  const cut = cutModel(model, ends)
  await cacheShape(model, cut.attention, false)
}

function spoilCheckpoint(random: () => number, folder: string): Promise<() => Promise<void>> {
  if (random() < 0.6) return withFile(folder, 'config.json', (bytes) => spoilJson(random, bytes))
  return withFile(folder, 'model.safetensors', (bytes) => {
    const length = Number(bytes.readBigUInt64LE(0))
    if (random() < 0.3) return damagedBytes(random, bytes, 8 + length)
    const header = Buffer.from(spoilJson(random, bytes.subarray(8, 8 + length)))
    const prefix = Buffer.alloc(8)
    prefix.writeBigUInt64LE(BigInt(header.length))
    return Buffer.concat([prefix, header, bytes.subarray(8 + length)])
  })
}

function spoilJson(random: () => number, bytes: Uint8Array): Uint8Array {
  if (random() < 0.1) return damagedBytes(random, bytes)
  return Buffer.from(JSON.stringify(mutated(random, JSON.parse(Buffer.from(bytes).toString()), false) ?? null))
}

async function readCheckpoint(folder: string): Promise<void> {
  const source = await openSource(folder, {})
  const cut = cutModel(source.model, source.ends)
  await cacheShape(source.model, cut.attention, source.spec.hasImportance)
  source.rotary(cut.attention)
}

const tokenizerFiles = ['tokenizer.json', 'generation_config.json', 'config.json'] as const

function spoilTokenizer(random: () => number, folder: string): Promise<() => Promise<void>> {
  return withFile(folder, pickFrom(random, tokenizerFiles), (bytes) => spoilJson(random, bytes))
}

async function readTokenizer(folder: string): Promise<void> {
  const config = (await readOptionalJson(join(folder, 'config.json'))) ?? {}
  const tokenizer = await openTokenizer(folder, config)
  await readGenerationDefaults(folder)
  const tokens = tokenizer.encode('Odin drank, ähm, three times. 🐎\n')
  tokenizer.decode([...tokens, 0, 1, 255, 256, 4000])
  tokenizer.vocabulary?.()
}

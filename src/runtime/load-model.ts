/** From a folder on disk to a model that runs. */
import { stat } from 'node:fs/promises'
import { availableParallelism } from 'node:os'
import type { CacheShape } from '../cache/contract.ts'
import { openKernels } from '../kernels/index.ts'
import { type Checkpoint, type CutModel, cutModel, externalRoot, layerShapes, openCheckpoint } from '../onnx/index.ts'
import { nodeEncodings } from '../onnx/rotary-encodings.ts'
import { checkCacheOptions } from '../policies/index.ts'
import { checkChoice, checkInteger, checkKeys, describe } from '../tensor/check.ts'
import { invalidArgument, KvasirError } from '../tensor/error.ts'
import { cacheKeys, resolveCacheOptions } from './cache-options.ts'
import type { CausalLM, LoadOptions } from './contract.ts'
import { describeModel } from './describe-model.ts'
import { readGenerationDefaults } from './generation-config.ts'
import { LoadedModel } from './model.ts'
import { quantizedModel } from './quantized-cache.ts'
import { Runner } from './runner.ts'
import { SegmentSession } from './session.ts'
import { openTokenizer } from './tokenizer.ts'

/** What the kernels can start. */
const maxThreads = 256

/**
 * Loads a checkpoint folder: config.json, tokenizer.json, model.safetensors or its shards. Weights stay in their files
 * and are read by ONNX Runtime as it needs them.
 * @throws KvasirError `not-found` for a missing folder or file, `invalid-file` for a broken one, `unsupported` for
 * models that Kvasir does not compute, `invalid-argument` naming an option
 */
export async function loadModel(path: string, options: LoadOptions = {}): Promise<CausalLM> {
  const {
    backend,
    threads = Math.min(availableParallelism(), maxThreads),
    chunkSize = 512,
    quantize,
    ...chosen
  } = checkLoadOptions(options)
  await checkFolder(path)
  const checkpoint = await openCheckpoint(path)
  const { spec, config, model, ends } = checkpoint
  const cacheOptions = resolveCacheOptions(spec, chosen)
  checkCacheOptions(cacheOptions)
  const tokenizer = await openTokenizer(path, config)
  const generationDefaults = await readGenerationDefaults(path)
  const kernels = openKernels({ ...(backend && { backend }), threads })
  const cut = cutModel(quantize ? await quantizedModel(checkpoint, quantize) : model, ends)
  const shape = await cacheShape(checkpoint, cut)
  const rotary = nodeEncodings(checkpoint, cut.attention)
  const sessions: SegmentSession[] = []
  const release = async (): Promise<void> => {
    for (const session of sessions) await session.release()
  }
  try {
    const session = { threads, root: externalRoot(path), prepack: quantize !== undefined }
    for (const segment of [...cut.segments, cut.head]) sessions.push(await SegmentSession.open(segment, session))
  } catch (error) {
    await release()
    throw error
  }
  const runner = new Runner({ spec, cut, sessions, kernels, rotary, ends })
  const description = describeModel(checkpoint, cut, shape, kernels, cacheOptions.kvDtype)
  return new LoadedModel({
    spec,
    shape,
    tokenizer,
    kernels,
    runner,
    chunkSize,
    chosen,
    description,
    generationDefaults,
    release,
  })
}

/** The layers that have a cache of their own. */
async function cacheShape({ spec, model }: Checkpoint, { attention }: CutModel): Promise<CacheShape> {
  const alibi = attention.find((node) => node.alibi || node.sharesKeyValueWith !== undefined)
  if (alibi) {
    throw new KvasirError('unsupported', 'runtime', `expected attention with keys of its own at "${alibi.name}"`)
  }
  const layers = await layerShapes(model, attention)
  return { numLayers: layers.length, layers, hasImportance: spec.hasImportance }
}

function checkLoadOptions(options: LoadOptions): LoadOptions {
  const { threads, chunkSize, quantize } = options
  checkKeys('runtime', 'loadModel', options, [...cacheKeys, 'backend', 'threads', 'chunkSize', 'quantize'])
  if (threads !== undefined) checkInteger('runtime', 'threads', threads, 1, maxThreads)
  if (chunkSize !== undefined) checkInteger('runtime', 'chunkSize', chunkSize, 1, 1 << 20)
  if (quantize !== undefined) checkChoice('runtime', 'quantize', quantize, ['int8', 'int4'])
  return options
}

async function checkFolder(path: unknown): Promise<void> {
  if (typeof path !== 'string' || path === '') {
    throw invalidArgument('runtime', `expected the path of a model folder, got ${describe(path)}`)
  }
  const info = await stat(path).catch(() => undefined)
  if (info?.isDirectory()) return
  throw new KvasirError(
    'not-found',
    'runtime',
    `expected a model folder, got ${info ? 'a file' : 'nothing'} at ${path}`,
  )
}

/** From a folder on disk to a model that runs. */
import { stat } from 'node:fs/promises'
import { availableParallelism } from 'node:os'
import { openSharedPrefixes } from '../cache/prefix/open-prefixes.ts'
import { openKernels } from '../kernels/index.ts'
import { cutModel, externalRoot, type GraphEnds } from '../onnx/index.ts'
import { checkCacheOptions } from '../policies/index.ts'
import { checkChoice, checkInteger, checkKeys, describe } from '../tensor/check.ts'
import { invalidArgument, KvasirError } from '../tensor/error.ts'
import { cacheKeys, resolveCacheOptions } from './cache-options.ts'
import { cacheShape } from './cache-shape.ts'
import { readsInPieces } from './check-steps.ts'
import type { CausalLM, LoadOptions, ModelDescription } from './contract.ts'
import { describeModel } from './describe-model.ts'
import { modelFingerprint, weightsIdentity } from './fingerprint.ts'
import { readGenerationDefaults } from './generation-config.ts'
import { LoadedModel } from './model.ts'
import { openSource } from './model-source.ts'
import { openRecallStore } from './recall-store.ts'
import { fixedLength, type RotarySource } from './rotation.ts'
import { Runner } from './runner.ts'
import { Scorers } from './scorers.ts'
import { SegmentSession } from './session.ts'
import { openTokenizer } from './tokenizer.ts'

const loadKeys = ['backend', 'threads', 'chunkSize', 'quantize', 'dtype', 'prefixCache', 'recallTiers']

/** What the kernels can start. */
const maxThreads = 256

/**
 * Loads a model folder: config.json, tokenizer.json and either model.safetensors (or its shards) or an ONNX decoder as
 * published for transformers.js, such as onnx/model_q4.onnx. Weights stay in their files and are read by ONNX Runtime
 * as it needs them.
 * @throws KvasirError `not-found` for a missing folder or file, `invalid-file` for a broken one, `unsupported` for
 * models that Kvasir does not compute, `invalid-argument` naming an option
 */
export async function loadModel(path: string, options: LoadOptions = {}): Promise<CausalLM> {
  const {
    backend,
    threads = Math.min(availableParallelism(), maxThreads),
    chunkSize = 512,
    quantize,
    dtype,
    prefixCache,
    recallTiers: _,
    ...chosen
  } = checkLoadOptions(options)
  await checkFolder(path)
  const source = await openSource(path, { quantize, dtype })
  const { spec, config, ends } = source
  const cacheOptions = resolveCacheOptions(spec, chosen)
  checkCacheOptions(cacheOptions)
  const tokenizer = await openTokenizer(path, config)
  const generationDefaults = await readGenerationDefaults(path, spec.vocabSize)
  const kernels = openKernels({ ...(backend && { backend }), threads })
  const cut = cutModel(source.model, ends)
  const shape = await cacheShape(source.model, cut.attention, spec.hasImportance)
  const rotary = source.rotary(cut.attention)
  let known: Promise<string> | undefined
  const fingerprint = (): Promise<string> => (known ??= modelFingerprint(source, externalRoot(path)))
  const prefixes =
    prefixCache &&
    (await openSharedPrefixes(prefixCache, { fingerprint: await fingerprint(), maxTokens: sharedLength(rotary, ends) }))
  const recallStore = await openRecallStore(options).catch(async (error: unknown) => {
    await prefixes?.close()
    throw error
  })
  const sessions: SegmentSession[] = []
  const release = async (): Promise<void> => {
    try {
      await prefixes?.close()
      await recallStore?.close()
    } finally {
      for (const session of sessions) await session.release()
    }
  }
  try {
    const session = { threads, root: externalRoot(path), prepack: source.prepack }
    for (const segment of [...cut.segments, cut.head]) sessions.push(await SegmentSession.open(segment, session))
  } catch (error) {
    await release()
    throw error
  }
  const runner = new Runner({ spec, cut, sessions, kernels, rotary, ends })
  try {
    const identity = await weightsIdentity(source, externalRoot(path))
    const scorers = new Scorers(path, { shape, identity })
    scorers.resolve(cacheOptions) // refused now rather than with the first cache
    const description = {
      ...describeModel(source, cut, shape, kernels, cacheOptions),
      ...{ weights: identity, ...(scorers.own !== undefined && { scorer: scorers.own }) },
    }
    const about = { spec, shape, description, fingerprint, chosen, generationDefaults, prefixes, recallStore }
    const parts = { ...about, tokenizer, kernels, runner, scorers, release }
    if (!ends.alone) return new LoadedModel({ ...parts, chunkSize })
    const canRead = await readsInPieces(new LoadedModel({ ...parts, chunkSize, chosen: {} }), source)
    const warned = withWarnings(description, canRead)
    return new LoadedModel({ ...parts, description: warned, chunkSize: canRead ? chunkSize : 1 })
  } catch (error) {
    await release()
    throw error
  }
}

/** Tokens of the longest text whose beginning is computed as that of any other is. */
function sharedLength(rotary: readonly (RotarySource | undefined)[], { alone }: GraphEnds): number {
  if (alone?.textLength !== undefined) return 0
  return Math.min(...rotary.map((table) => (table ? fixedLength(table) : Number.POSITIVE_INFINITY)))
}

/** Says what costs the user something. */
function withWarnings(description: ModelDescription, canRead: boolean): ModelDescription {
  const warnings = [...(description.warnings ?? [])]
  if (!canRead) warnings.push('its states go on with one token at a time, so prompts are read slowly')
  if (warnings.length === 0) return description
  const what = 'parts of the graph stay with ONNX Runtime, which reads sequences one after the other'
  process.emitWarning(`${what}: ${warnings.join('; ')}`, 'KvasirWarning')
  return { ...description, warnings }
}

function checkLoadOptions(options: LoadOptions): LoadOptions {
  const { threads, chunkSize, quantize } = options
  checkKeys('runtime', 'loadModel', options, [...cacheKeys, ...loadKeys])
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

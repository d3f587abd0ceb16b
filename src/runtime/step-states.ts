/** What a graph takes and gives besides tokens when its sequences run one at a time: states, mask, length. */
import { Tensor } from 'onnxruntime-node'
import type { KvCache } from '../cache/contract.ts'
import type { GraphEnds, GraphState } from '../onnx/index.ts'
import { invalidArgument, KvasirError } from '../tensor/error.ts'
import type { Step } from './batch.ts'
import { StatefulCache, type States } from './stateful-cache.ts'

type AloneEnds = NonNullable<GraphEnds['alone']>

/** TensorProto.DataType, the tensor's own name of it, and its zeros. */
const zerosOf: Readonly<Record<number, (size: number, dims: readonly number[]) => Tensor>> = {
  1: (size, dims) => new Tensor('float32', new Float32Array(size), dims),
  2: (size, dims) => new Tensor('uint8', new Uint8Array(size), dims),
  3: (size, dims) => new Tensor('int8', new Int8Array(size), dims),
  6: (size, dims) => new Tensor('int32', new Int32Array(size), dims),
  7: (size, dims) => new Tensor('int64', new BigInt64Array(size), dims),
  9: (size, dims) => new Tensor('bool', new Uint8Array(size), dims),
  10: (size, dims) => new Tensor('float16', new Uint16Array(size), dims),
}

export class StepStates {
  readonly #ends: AloneEnds
  readonly #initial: States
  readonly #kept: ReadonlySet<string>

  /** @throws KvasirError `unsupported` for states of a type that can't be fed */
  constructor(ends: AloneEnds) {
    this.#ends = ends
    this.#initial = new Map(ends.states.map((state) => [state.past, emptyState(state)]))
    this.#kept = new Set(ends.states.flatMap(({ past, present }) => [past, present]))
  }

  /** Whether the values between two sessions may not be written to or used again: caches hold them. */
  isKept(name: string): boolean {
    return this.#kept.has(name)
  }

  /** A cache that remembers the states, too. */
  wrap(cache: KvCache): KvCache {
    return new StatefulCache(cache, this.#initial)
  }

  /** What a step of one sequence is fed. */
  inputs({ slices, tokens }: Step): Map<string, Tensor> {
    const [slice] = slices
    const cache = cacheOf(slice!.cache)
    const values = new Map(cache.states)
    const { mask, textLength } = this.#ends
    const length = cache.seenTokens + tokens.length
    if (mask !== undefined) values.set(mask, new Tensor('int64', new BigInt64Array(length).fill(1n), [1, length]))
    if (textLength !== undefined) values.set(textLength, new Tensor('int64', [BigInt(slice!.length)], [1]))
    return values
  }

  /** Takes the new states out of a step's values. */
  keep({ slices }: Step, values: ReadonlyMap<string, unknown>): void {
    const states = this.#ends.states.map(({ past, present }) => [past, values.get(present) as Tensor] as const)
    cacheOf(slices[0]!.cache).keep(new Map(states))
  }
}

function cacheOf(cache: KvCache): StatefulCache {
  if (cache instanceof StatefulCache) return cache
  throw invalidArgument('runtime', 'expected a cache that this model has made, got another one')
}

function emptyState({ past, type, dims }: GraphState): Tensor {
  const zeros = zerosOf[type]
  const size = dims.reduce((product, dim) => product * dim, 1)
  if (zeros && size <= 2 ** 31) return zeros(size, dims)
  const message = `expected a state of numbers that can be fed for "${past}", got type ${type}, [${dims.join(', ')}]`
  throw new KvasirError('unsupported', 'runtime', message)
}

/** What `kvasir inspect` shows of a model. */
import type { CacheOptions, CacheShape } from '../cache/contract.ts'
import { bytesOfRow, rowTypesOf } from '../cache/storage/row-types.ts'
import type { Kernels } from '../kernels/contract.ts'
import {
  bytesOf,
  type CutModel,
  externalFile,
  type GraphState,
  initializerBytes,
  type OnnxTensor,
  type Segment,
} from '../onnx/index.ts'
import { advisePolicies } from './advise-policies.ts'
import type { ModelDescription } from './contract.ts'
import type { ModelSource } from './model-source.ts'
import type { RotarySource } from './rotation.ts'

export function describeModel(
  { spec, plain, published, rotary, ends }: ModelSource,
  cut: CutModel,
  shape: CacheShape,
  kernels: Kernels,
  cacheOptions: Pick<CacheOptions, 'kvDtype' | 'kvDtypeK' | 'kvDtypeV'>,
): Omit<ModelDescription, 'weights' | 'scorer'> {
  const { layers } = shape
  const parts = [...cut.segments, cut.head]
  // Tied embeddings are an initializer of two segments, but one set of weights.
  const weights = new Map<string, OnnxTensor>()
  for (const { model } of parts) for (const tensor of model.graph!.initializer) weights.set(tensor.name ?? '', tensor)
  const tensors = [...weights.values()].filter(isWeight)
  const types = rowTypesOf(cacheOptions)
  const bias = shape.hasImportance ? 4 : 0
  const sources = rotary(cut.attention)
  const { reason } = ends.alone ?? {}
  const warnings = [...(published?.warnings ?? []), ...(reason === undefined ? [] : [reason])]
  return {
    architecture: spec.architecture,
    // Of the graph before quantization, whose tensors have their plain shapes.
    parameters: published
      ? countParameters(parts, tensors)
      : sum(plain.graph!.initializer.filter(isWeight).map(elements)),
    weightBytes: sum(tensors.map(initializerBytes)),
    segments: parts.map(({ name, model }) => ({
      name,
      nodes: model.graph!.node.length,
      weightBytes: sum(model.graph!.initializer.map(initializerBytes)),
    })),
    attention: cut.attention.map(({ layer, name, numHeads, numKvHeads, headDim, window }, i) => ({
      layer,
      node: name,
      numHeads,
      numKvHeads,
      headDim,
      ...(window !== undefined && { window }),
      rotation: rotationName(sources[i]),
      ...(published && { was: published.kinds[i] as string }),
    })),
    ...(published && { file: published.file }),
    weightFiles: weightFiles(tensors),
    ...(ends.alone?.states.length && { states: ends.alone.states.map(stateSize) }),
    ...(warnings.length > 0 && { warnings }),
    policies: advisePolicies(
      spec,
      shape,
      sources.some((source) => source !== undefined),
    ),
    kvBytesPerToken: sum(layers.map((layer) => layer.numKvHeads * (bytesOfRow({ ...layer, ...types }) + bias))),
    backend: kernels.description,
  }
}

/** Bytes of each file, as they are used. */
function weightFiles(tensors: readonly OnnxTensor[]): ModelDescription['weightFiles'] {
  const bytes = new Map<string, number>()
  for (const tensor of tensors) {
    const file = externalFile(tensor)
    bytes.set(file, (bytes.get(file) ?? 0) + initializerBytes(tensor))
  }
  return [...bytes].map(([file, size]) => ({ file, bytes: size }))
}

function stateSize({ past, type, dims, grows }: GraphState): { name: string; bytes?: number } {
  const size = dims.reduce((product, dim) => product * dim, 1)
  return { name: past, ...(!grows && { bytes: size * bytesOf(type) }) }
}

/** Numbers before quantization: packed codes count as what they stand for, scales and zero points not at all. */
function countParameters(parts: readonly Segment[], weights: readonly OnnxTensor[]): number {
  const counts = new Map(weights.map((tensor) => [tensor.name ?? '', elements(tensor)]))
  for (const { opType, input, attribute } of parts.flatMap(({ model }) => model.graph!.node)) {
    const size = (name: string): number => Number(attribute.find((item) => item.name === name)?.i ?? 0)
    const isProduct = opType === 'MatMulNBits' || opType === 'MatMulBnb4'
    if (isProduct) counts.set(input[1] ?? '', size('K') * size('N'))
    if (isProduct || opType === 'GatherBlockQuantized') for (const name of input.slice(2, 4)) counts.delete(name)
  }
  return sum([...counts.values()])
}

function rotationName(source: RotarySource | undefined): string {
  if (source === undefined) return 'none'
  return 'rows' in source ? `table of ${source.rows} positions` : source.name
}

/** Weights are external; constants such as shapes are not. */
function isWeight({ externalData }: OnnxTensor): boolean {
  return externalData.length > 0
}

function elements({ dims }: OnnxTensor): number {
  return dims.reduce<number>((product, dim) => product * Number(dim), 1)
}

function sum(numbers: readonly number[]): number {
  return numbers.reduce((total, number) => total + number, 0)
}

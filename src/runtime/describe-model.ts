/** What `kvasir inspect` shows of a model. */
import type { CacheShape } from '../cache/contract.ts'
import type { Kernels } from '../kernels/contract.ts'
import { type CutModel, initializerBytes, type OnnxTensor } from '../onnx/index.ts'
import type { ModelDescription } from './contract.ts'
import type { ModelSource } from './model-source.ts'

export function describeModel(
  { spec, plain }: ModelSource,
  cut: CutModel,
  { layers }: CacheShape,
  kernels: Kernels,
  kvDtype: 'f32' | 'f16' | undefined,
): ModelDescription {
  const parts = [...cut.segments, cut.head]
  // Tied embeddings are an initializer of two segments, but one set of weights.
  const weights = new Map<string, OnnxTensor>()
  for (const { model } of parts) for (const tensor of model.graph!.initializer) weights.set(tensor.name ?? '', tensor)
  const tensors = [...weights.values()].filter(isWeight)
  const kvNumbers = sum(layers.map(({ numKvHeads, headDim, valueDim }) => numKvHeads * (headDim + valueDim)))
  return {
    architecture: spec.architecture,
    // Of the graph before quantization, whose tensors have their plain shapes.
    parameters: sum(plain.graph!.initializer.filter(isWeight).map(elements)),
    weightBytes: sum(tensors.map(initializerBytes)),
    segments: parts.map(({ name, model }) => ({
      name,
      nodes: model.graph!.node.length,
      weightBytes: sum(model.graph!.initializer.map(initializerBytes)),
    })),
    attention: cut.attention.map(({ layer, name, numHeads, numKvHeads, headDim }) => ({
      layer,
      node: name,
      numHeads,
      numKvHeads,
      headDim,
    })),
    kvBytesPerToken: kvNumbers * (kvDtype === 'f16' ? 2 : 4),
    backend: kernels.description,
  }
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

/**
 * ONNX files and checkpoints: reading, building and cutting graphs, for the folders above. Runs nothing. What the package
 * exports is in public.ts.
 */

export {
  architectureNames,
  type GraphEnds,
  type GraphState,
  type ModelSpec,
} from './architectures/index.ts'
export type { AttentionNode } from './attention-node.ts'
export { type Checkpoint, openCheckpoint, readJson } from './checkpoint.ts'
export { decodeModel, encodeModel, make } from './codec.ts'
export { type CutModel, cutModel, type Segment } from './cut.ts'
export type { DecoderSizes } from './decoder/keys.ts'
export { bytesOf } from './element-bits.ts'
export {
  type ExportDtype,
  exportDtypes,
  exportOnnx,
} from './export/index.ts'
export { externalFile, externalRoot, initializerBytes } from './external.ts'
export { layerShapes } from './layer-shapes.ts'
export { openOnnxFile } from './onnx-file.ts'
export { hasSafetensors, listOnnxFiles, openOnnxFolder, type PublishedModel } from './onnx-folder.ts'
export { checkDtype, chooseDecoder, findDecoders, type OnnxDtype, onnxDtypes } from './onnx-names.ts'
export {
  blockSize as quantizedBlockSize,
  type QuantizedBits,
  quantizableWeights,
  quantizedNames,
  quantizeMatrix,
  quantizeModel,
} from './quantize.ts'
export { nodeEncodings } from './rotary-encodings.ts'
export { parseSafetensors, readSafetensorsHeader, type TensorEntry } from './safetensors.ts'
export { type TensorPlan, writeSafetensors } from './safetensors-writer.ts'
export type { OnnxModel, OnnxTensor, OnnxValueInfo } from './schema.ts'
export type { GraphTable, OpenGraph } from './takeover/index.ts'
export { openWeights, readTensor, type Weights } from './weights.ts'

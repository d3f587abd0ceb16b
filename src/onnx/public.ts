/** `kvasir/onnx`: ONNX files and checkpoints as files: read, written, and one made from the other. Runs nothing. */
export { type ArchitectureName, architectureNames } from './architectures/index.ts'
export { decodeModel, encodeModel, make } from './codec.ts'
export { type ExportDtype, type ExportOptions, type ExportResult, exportOnnx } from './export/index.ts'
export { readSafetensorsHeader, type SafetensorsDtype, type TensorEntry } from './safetensors.ts'
export { type TensorPlan, writeSafetensors } from './safetensors-writer.ts'
export type {
  Message,
  MessageName,
  OnnxAttribute,
  OnnxGraph,
  OnnxModel,
  OnnxNode,
  OnnxTensor,
  OnnxValueInfo,
} from './schema.ts'

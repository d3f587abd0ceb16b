/** Errors of the takeover: which node, and why it can't be taken over. */
import { KvasirError } from '../../tensor/error.ts'
import type { OnnxNode } from '../schema.ts'

export function refuse(node: Pick<OnnxNode, 'name' | 'opType'>, reason: string): KvasirError {
  return new KvasirError('unsupported', 'onnx', `${node.opType} "${node.name}" can't be taken over: ${reason}`)
}

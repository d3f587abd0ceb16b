/** Errors of the takeover: which node, and why it can't be taken over. */
import { KvasirError } from '../../tensor/error.ts'
import type { OnnxNode } from '../schema.ts'
import type { FoundAttention, Refused } from './contract.ts'

export function refuse(node: Pick<OnnxNode, 'name' | 'opType'>, reason: string): KvasirError {
  return new KvasirError('unsupported', 'onnx', `${node.opType} "${node.name}" can't be taken over: ${reason}`)
}

/** What `describe` says of each node, but for those that it refuses or that are nothing of the kind. */
export async function describeEach(
  nodes: readonly OnnxNode[],
  describe: (node: OnnxNode) => FoundAttention | undefined | Promise<FoundAttention | undefined>,
  refused: Refused,
): Promise<FoundAttention[]> {
  const found: FoundAttention[] = []
  for (const node of nodes) {
    try {
      const attention = await describe(node)
      if (attention) found.push(attention)
    } catch (error) {
      refused(error)
    }
  }
  return found
}

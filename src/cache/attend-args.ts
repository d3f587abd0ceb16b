/**
 * Arguments of attention over a layer, field by field: an object of so many fields takes longer to spread than all else
 * that a cache does in a step.
 */
import type { AttendArgs, WeighArgs } from '../kernels/index.ts'
import type { LayerConfig } from './layout.ts'

/** What all calls for a layer have alike: its sizes and what becomes of its logits. */
export type LayerAttention = ReturnType<typeof attentionOf>

export function attentionOf({ shape, hadamard }: Pick<LayerConfig, 'shape'> & Partial<LayerConfig>) {
  const { numHeads, numKvHeads, headDim, valueDim, ...rest } = shape
  const { scale = 1 / Math.sqrt(headDim), softcap, sinkLogits, alibiSlopes } = rest
  return { numHeads, numKvHeads, headDim, valueDim, scale, softcap, sinkLogits, alibiSlopes, hadamard }
}

export function attendArgs(
  layer: LayerAttention,
  {
    query,
    output,
    lse,
    logits,
    numTokens,
    firstPosition,
    left,
    right,
    rotation,
    segments,
  }: Omit<AttendArgs, keyof LayerAttention>,
): AttendArgs {
  return {
    query,
    output,
    lse,
    logits,
    numTokens,
    numHeads: layer.numHeads,
    numKvHeads: layer.numKvHeads,
    headDim: layer.headDim,
    valueDim: layer.valueDim,
    scale: layer.scale,
    firstPosition,
    left,
    right,
    softcap: layer.softcap,
    alibiSlopes: layer.alibiSlopes,
    sinkLogits: layer.sinkLogits,
    hadamard: layer.hadamard,
    rotation,
    segments,
  }
}

/** Of attention that has been: what `masses` get of the queries from `firstToken` on. */
export function weighArgs(args: AttendArgs, masses: readonly Float32Array[], firstToken = 0): WeighArgs {
  const own = attendArgs(args as LayerAttention, args) as { -readonly [Field in keyof WeighArgs]: WeighArgs[Field] }
  own.masses = masses
  own.firstToken = firstToken
  return own
}

/** The checks of what a cache is made for: the sizes of layers. */
import type { CacheShape, LayerShape } from '../cache/contract.ts'
import { checkFinite, checkInteger, checkObject, describe } from '../tensor/check.ts'
import { invalidArgument } from '../tensor/error.ts'

const maxDim = 65536

/** @throws KvasirError `invalid-argument`, naming the layer and what of it */
export function checkShape(shape: CacheShape): void {
  checkObject('cache', 'a shape', shape)
  const { numLayers, layers, hasImportance } = shape
  if (!Array.isArray(layers) || layers.length === 0 || layers.length !== numLayers) {
    const came = `${describe(layers)} and numLayers ${describe(numLayers)}`
    throw invalidArgument('cache', `expected as many layers as numLayers says, at least one, got ${came}`)
  }
  if (typeof hasImportance !== 'boolean') {
    throw invalidArgument('cache', `expected true or false for hasImportance, got ${describe(hasImportance)}`)
  }
  for (const [index, layer] of layers.entries()) checkLayer(`layers[${index}]`, layer)
}

function checkLayer(name: string, layer: LayerShape): void {
  checkObject('cache', name, layer)
  const { numHeads, numKvHeads, headDim, valueDim, scale, softcap, window, sinkLogits, alibiSlopes } = layer
  for (const [key, value] of Object.entries({ numHeads, numKvHeads, headDim, valueDim })) {
    checkInteger('cache', `${name}.${key}`, value, 1, maxDim)
  }
  if (numHeads % numKvHeads !== 0) {
    const came = `${numHeads} and ${numKvHeads}`
    throw invalidArgument('cache', `expected ${name}.numHeads to be a multiple of numKvHeads, got ${came}`)
  }
  if (scale !== undefined) checkFinite('cache', `${name}.scale`, scale)
  if (softcap !== undefined) checkFinite('cache', `${name}.softcap`, softcap)
  if (window !== undefined) checkInteger('cache', `${name}.window`, window, 1)
  for (const [key, values] of Object.entries({ sinkLogits, alibiSlopes })) {
    if (values === undefined || (values instanceof Float32Array && values.length === numHeads)) continue
    const got = values instanceof Float32Array ? `one of ${values.length}` : describe(values)
    throw invalidArgument('cache', `expected a Float32Array of ${numHeads} for ${name}.${key}, got ${got}`)
  }
}

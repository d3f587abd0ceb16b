/** `kvasir/policies`: caches for any sequence of layers, and the names that can be chosen for them. */
export { type HeldRoom, holdRoom, type NextTokens } from '../cache/room.ts'
export { createKvCache, createKvPool, importanceNames, type PresetName, policyNames, presets } from './index.ts'

/** The architectures that can be built from safetensors, by `model_type` of config.json. One more is one more file. */
import type { Architecture } from './contract.ts'
import { doge } from './doge.ts'

export type * from './contract.ts'

export const architectures = { doge } as const satisfies Record<string, Architecture>

export type ArchitectureName = keyof typeof architectures

export const architectureNames = Object.keys(architectures) as ArchitectureName[]

/** The architectures that can be built from safetensors, by `model_type` of config.json. One more is one more file. */
import type { Architecture } from './contract.ts'
import { doge } from './doge.ts'
import { gemma2 } from './gemma2.ts'
import { gemma3 } from './gemma3.ts'
import { gemma3_text } from './gemma3_text.ts'
import { llama } from './llama.ts'
import { mistral } from './mistral.ts'
import { phi3 } from './phi3.ts'
import { qwen2 } from './qwen2.ts'
import { qwen3 } from './qwen3.ts'
import { smollm3 } from './smollm3.ts'

export type * from './contract.ts'

export const architectures = {
  doge,
  gemma2,
  gemma3,
  gemma3_text,
  llama,
  mistral,
  phi3,
  qwen2,
  qwen3,
  smollm3,
} as const satisfies Record<string, Architecture>

export type ArchitectureName = keyof typeof architectures

export const architectureNames = Object.keys(architectures) as ArchitectureName[]

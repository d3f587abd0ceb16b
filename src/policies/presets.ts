/**
 * Sizes of a cache by what it is used for; docs/caches.md says what each costs and keeps. Rows of 8 bits leave the most
 * likely token what it is in 99.7 % of cases and take half of what f16 takes; where the window is small f16 costs little.
 */
import type { CacheOptions } from '../cache/contract.ts'

type Preset = Required<Pick<CacheOptions, 'window' | 'sinks' | 'recent' | 'kvDtype'>>

export const presets = {
  /** Talk: the first words set the tone, the last ones are what one answers to. */
  chat: { window: 4096, sinks: 4, recent: 512, kvDtype: 'int8' },
  /** Programs refer far back and to the last lines. */
  code: { window: 8192, sinks: 4, recent: 1024, kvDtype: 'int8' },
  /** Long texts read once: most of the budget for what is important, wherever it stood. */
  document: { window: 2048, sinks: 4, recent: 128, kvDtype: 'int8' },
  /** Speech and streams: short steps first, mostly what was just said. */
  realtime: { window: 1024, sinks: 4, recent: 512, kvDtype: 'f16' },
} as const satisfies Record<string, Preset>

export type PresetName = keyof typeof presets

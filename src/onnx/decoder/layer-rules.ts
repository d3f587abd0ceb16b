/** Which layers of a model see a window only: the rules that model types share. */
import type { ConfigReader } from '../config-reader.ts'

export interface WindowRule {
  /** Default of sliding_window; null for none. */
  readonly window: number | null
  /** A flag that switches windows on; they are on where there is no such flag. */
  readonly enabledBy?: string
  /** Whether a layer slides when layer_types does not say; absent: every layer, and there is no layer_types. */
  readonly slides?: (config: ConfigReader, layer: number) => boolean
}

type LayerType = 'sliding_attention' | 'full_attention'

/** The window of each layer; undefined where it sees everything. */
export function layerWindows(rule: WindowRule, config: ConfigReader, numLayers: number): (number | undefined)[] {
  const isOn = rule.enabledBy === undefined || config.flag(rule.enabledBy, false)
  const given = config.optional('sliding_window', rule.window)
  const window = isOn ? given : undefined
  if (window !== undefined && !Number.isSafeInteger(window)) {
    throw config.invalid('sliding_window', 'a positive integer', window)
  }
  const types = layerTypes(rule, config, numLayers)
  return types.map((type, layer) => {
    if (type === 'full_attention') return undefined
    if (window !== undefined) return window
    if (!rule.slides) return undefined
    throw config.invalid('sliding_window', `a window, as layer ${layer} is sliding_attention`, window)
  })
}

/** layer_types, or what the rule says. */
function layerTypes(rule: WindowRule, config: ConfigReader, numLayers: number): readonly LayerType[] {
  const { slides, enabledBy } = rule
  const listed = slides && config.perLayer('layer_types', numLayers, ['sliding_attention', 'full_attention'])
  if (listed) return listed as LayerType[]
  const isOn = enabledBy === undefined || config.flag(enabledBy, false)
  const hasWindow = isOn && config.optional('sliding_window', rule.window) !== undefined
  return Array.from({ length: numLayers }, (_, layer) =>
    hasWindow && (slides?.(config, layer) ?? true) ? 'sliding_attention' : 'full_attention',
  )
}

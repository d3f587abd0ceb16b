/** Loads the model that a command line names. */
import { basename } from 'node:path'
import type { CausalLM } from '../runtime/contract.ts'
import type { CliContext } from './context.ts'
import { type LoadFlags, toLoadOptions } from './options.ts'
import { bundledModel } from './package-root.ts'

export interface ModelFlags extends LoadFlags {
  readonly model?: string
}

/** Runs `use` with the model, and disposes of it however that ends. */
export async function withModel<T>(
  context: CliContext,
  flags: ModelFlags,
  use: (model: CausalLM) => Promise<T>,
): Promise<T> {
  const model = await context.loadModel(flags.model ?? bundledModel(), toLoadOptions(flags))
  try {
    return await use(model)
  } finally {
    await model.dispose()
  }
}

/** What a result calls the model: the path as given, or the name of the bundled one. */
export function modelName({ model }: ModelFlags): string {
  return model ?? basename(bundledModel())
}

/** Loads the model that a command line names. */
import { basename } from 'node:path'
import type { CausalLM } from '../runtime/contract.ts'
import { invalidArgument } from '../tensor/error.ts'
import type { CliContext } from './context.ts'
import { type LoadFlags, toLoadOptions } from './options.ts'
import { bundledModel } from './package-root.ts'

export interface ModelFlags extends LoadFlags {
  readonly model?: string
}

/** The model as an argument without a name, or by --model as everywhere else. */
export function modelOf(argument: string | undefined, { model }: ModelFlags): Pick<ModelFlags, 'model'> {
  if (argument === undefined || model === undefined) return { model: argument ?? model }
  throw invalidArgument('cli', `expected one model, got the argument ${argument} and --model ${model}`)
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

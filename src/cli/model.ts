/** Loads the model that a command line names. */
import { basename } from 'node:path'
import { presets } from '../policies/index.ts'
import type { CausalLM } from '../runtime/contract.ts'
import { invalidArgument, isKvasirError, KvasirError, reasonOf } from '../tensor/error.ts'
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
  return await namingPreset(flags, async () => {
    const model = await context.loadModel(flags.model ?? bundledModel(), toLoadOptions(flags))
    try {
      return await use(model)
    } finally {
      await model.dispose()
    }
  })
}

/** Says of options that `work` refuses which of them nobody gave: they came with the preset. */
export async function namingPreset<T>(flags: LoadFlags, work: () => Promise<T>): Promise<T> {
  try {
    return await work()
  } catch (error) {
    if (flags.preset === undefined || !isKvasirError(error) || error.code !== 'invalid-argument') throw error
    const reason = reasonOf(error)
    const brought = Object.entries(presets[flags.preset]).filter(([name]) => {
      return flags[name as keyof LoadFlags] === undefined && new RegExp(`\\b${name}\\b`).test(reason)
    })
    if (brought.length === 0) throw error
    const list = brought.map(([name, value]) => `${name} ${value}`).join(', ')
    const message = `${reason} (--preset ${flags.preset} has ${list})`
    throw new KvasirError(error.code, error.area, message, { cause: error })
  }
}

/** What a result calls the model: the path as given, or the name of the bundled one. */
export function modelName({ model }: ModelFlags): string {
  return model ?? basename(bundledModel())
}

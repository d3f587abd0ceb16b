/** All commands. One more is a file and a line here; help and tests read this table. */
import type { Command } from 'commander'
import type { CliContext } from '../context.ts'
import { benchCommand } from './bench.ts'
import { chatCommand } from './chat.ts'
import { convertCommand } from './convert.ts'
import { demoCommand } from './demo.ts'
import { downloadCommand } from './download.ts'
import { evalCommand } from './eval.ts'
import { generateCommand } from './generate.ts'
import { inspectCommand } from './inspect.ts'
import { planCommand } from './plan.ts'
import { trainScorerCommand } from './train-scorer.ts'

export const commands = {
  chat: chatCommand,
  generate: generateCommand,
  eval: evalCommand,
  bench: benchCommand,
  convert: convertCommand,
  download: downloadCommand,
  inspect: inspectCommand,
  plan: planCommand,
  'train-scorer': trainScorerCommand,
  demo: demoCommand,
} as const satisfies Record<string, (context: CliContext) => Command>

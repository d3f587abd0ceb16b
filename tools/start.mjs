/** `npm start`: makes the checkout ready, then runs the command line; with no arguments, the demonstration. */
import { prepare, root } from './prepare.mjs'
import { runInForeground } from './steps.mjs'

const args = process.argv.slice(2)
process.exitCode = (await prepare())
  ? await runInForeground(
      process.execPath,
      // By address, so that it works from any working directory, which relative --model paths count from.
      ['--import', import.meta.resolve('tsx'), `${root}/src/cli/main.ts`, ...(args.length > 0 ? args : ['demo'])],
      { cwd: process.env.INIT_CWD ?? process.cwd() },
    )
  : 1

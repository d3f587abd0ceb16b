/** `npm test`: makes the checkout ready, then runs all tests; arguments go to vitest. */
import { prepare, root } from './prepare.mjs'
import { runInForeground } from './steps.mjs'

const vitest = `${root}/node_modules/vitest/vitest.mjs`
process.exitCode = (await prepare())
  ? await runInForeground(process.execPath, [vitest, 'run', ...process.argv.slice(2)], { cwd: root })
  : 1

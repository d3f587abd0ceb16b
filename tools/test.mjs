/** `npm test`: makes the checkout ready, then runs all tests; arguments go to vitest. */
import { prepare, root } from './prepare.mjs'
import { ensureRedis } from './redis.mjs'
import { openStamps } from './stale.mjs'
import { runInForeground } from './steps.mjs'

const vitest = `${root}/node_modules/vitest/vitest.mjs`
if (await prepare()) {
  await ensureRedis(openStamps(`${root}/build/stamp.json`))
  process.exitCode = await runInForeground(process.execPath, [vitest, 'run', ...process.argv.slice(2)], { cwd: root })
} else process.exitCode = 1

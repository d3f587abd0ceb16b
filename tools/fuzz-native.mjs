/**
 * Fuzzes the boundary of the addon: builds it with AddressSanitizer and UndefinedBehaviorSanitizer, then throws random
 * calls at it, half of them good, in a process of its own. A crash, a report of a sanitizer and an accepted call with
 * wrong results are findings: exit code 1, and how to see it again.
 *
 *   node tools/fuzz-native.mjs [--seconds 20] [--seed N] [--cases N]
 *
 * Test code that does it: test/fuzz/. Linux with g++ only; elsewhere it says so and ends well.
 */
import { spawnSync } from 'node:child_process'
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { buildAsan } from './build-asan.mjs'
import { say } from './steps.mjs'

const root = join(fileURLToPath(import.meta.url), '../..')
const { values } = parseArgs({
  options: { seconds: { type: 'string', default: '20' }, seed: { type: 'string' }, cases: { type: 'string' } },
})

async function fuzz() {
  if (process.platform !== 'linux') {
    say(`fuzzing needs Linux and g++; this is ${process.platform}`)
    return 0
  }
  const began = performance.now()
  const { addon, guard, library } = await buildAsan(root)
  const seed = values.seed ?? String(Date.now() % 2 ** 32)
  say(`built in ${((performance.now() - began) / 1000).toFixed(1)} s; seed ${seed}`)
  const at = join(root, 'build-asan/seed')
  writeFileSync(at, '')
  const options = ['--seed', seed, '--seconds', values.cases ? 'Infinity' : values.seconds, '--at', at]
  if (values.cases) options.push('--cases', values.cases)
  const child = spawnSync(
    process.execPath,
    ['--disable-wasm-trap-handler', '--expose-gc', '--import', 'tsx', 'test/fuzz/main.ts', ...options],
    {
      cwd: root,
      stdio: 'inherit',
      env: {
        ...process.env,
        ...{ KVASIR_ADDON: addon, KVASIR_GUARD: guard, LD_PRELOAD: library },
        // Node keeps memory to the end on purpose: what leaks is not told apart from that.
        ASAN_OPTIONS: 'detect_leaks=0:halt_on_error=1',
        UBSAN_OPTIONS: 'print_stacktrace=1',
      },
    },
  )
  if (child.status === 0) return 0
  const [last, ended] = [readFileSync(at, 'utf8').trim(), child.signal ?? `exit code ${child.status}`]
  if (last === '') say('the calls did not begin')
  else say(`FOUND (${ended}). Once more: node tools/fuzz-native.mjs --seed ${last} --cases 1`)
  return 1
}

process.exitCode = await fuzz()

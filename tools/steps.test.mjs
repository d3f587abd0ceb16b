import { spawn } from 'node:child_process'
import { expect, test } from 'vitest'

const steps = JSON.stringify(new URL('./steps.mjs', import.meta.url).href)

/** A process that runs `script` in the foreground, as `npm start` does, and is sent `signal` when that is up. */
function startAndSignal(script, signal) {
  const parent = `import(${steps}).then(async ({ runInForeground }) => {
    process.exitCode = await runInForeground(process.execPath, ['-e', ${JSON.stringify(script)}], {})
  })`
  const child = spawn(process.execPath, ['-e', parent], { stdio: ['ignore', 'pipe', 'inherit'] })
  child.stdout.once('data', () => child.kill(signal))
  return new Promise((resolve) => child.on('exit', (code) => resolve(code)))
}

const up = "console.log('up'); setTimeout(() => {}, 20000);"

test('what npm start runs is told of a SIGTERM that only npm start gets, and its exit code is handed on', async () => {
  expect(await startAndSignal(`process.on('SIGTERM', () => process.exit(9)); ${up}`, 'SIGTERM')).toBe(9)
})

test('a program that a signal ended has the exit code that shells give it', async () => {
  expect(await startAndSignal(up, 'SIGTERM')).toBe(143)
})

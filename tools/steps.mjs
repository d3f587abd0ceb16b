/**
 * Runs one preparing step as a child process: one line on standard error that says what is going on and how long it
 * took, and the child's own output only when it fails.
 */
import { spawn } from 'node:child_process'
import { constants } from 'node:os'

const redrawEveryMs = 200
const keptOutput = 64 * 1024

/**
 * Runs commands side by side as one step.
 * @param {string} title what the step does, for people: "Installing dependencies"
 * @param {readonly { command: string, args: readonly string[] }[]} commands
 * @param {string} cwd
 * @returns {Promise<{ ok: boolean, output: string }[]>} `output` is the end of what a child printed
 */
export async function runStep(title, commands, cwd) {
  const line = createLine(title)
  const results = await Promise.all(commands.map(({ command, args }) => run(command, args, { cwd })))
  line.end(results.every(({ ok }) => ok))
  return results
}

/** One line: says what has to be known, and no more. */
export function say(text) {
  process.stderr.write(`${text}\n`)
}

/** Runs a command that owns the terminal and returns its exit code, as shells have it: 143 when SIGTERM ended it. */
export function runInForeground(command, args, options) {
  return new Promise((resolve) => {
    const child = spawn(command, args, { stdio: 'inherit', ...options })
    // Ctrl-C reaches the child too (one process group): it decides, and this process waits for it. SIGTERM may not.
    process.on('SIGINT', () => {})
    process.on('SIGTERM', () => child.kill('SIGTERM'))
    child.on('error', (error) => {
      say(`${command}: ${error.message}`)
      resolve(1)
    })
    child.on('exit', (code, signal) => resolve(code ?? 128 + constants.signals[signal]))
  })
}

function run(command, args, options) {
  return new Promise((resolve) => {
    let output = ''
    const child = spawn(command, args, { ...options, stdio: ['ignore', 'pipe', 'pipe'] })
    const collect = (chunk) => {
      output = (output + chunk).slice(-keptOutput)
    }
    child.stdout.on('data', collect)
    child.stderr.on('data', collect)
    child.on('error', (error) => resolve({ ok: false, output: `${command}: ${error.message}` }))
    child.on('close', (code) => resolve({ ok: code === 0, output }))
  })
}

/** A line that counts the seconds on a terminal; elsewhere one line at the start and one at the end. */
function createLine(title) {
  const started = performance.now()
  const seconds = () => ((performance.now() - started) / 1000).toFixed(1)
  if (!process.stderr.isTTY) {
    say(`${title} ...`)
    return { end: (ok) => say(`${title}: ${ok ? 'done' : 'failed'} after ${seconds()} s`) }
  }
  const draw = (state) => process.stderr.write(`\r\x1b[K${title} ${state} ${seconds()} s`)
  draw('...')
  const timer = setInterval(() => draw('...'), redrawEveryMs)
  return {
    end: (ok) => {
      clearInterval(timer)
      draw(ok ? 'took' : 'failed after')
      process.stderr.write('\n')
    },
  }
}

/** A model that nobody asks anything does not keep its process from ending. */
import { execFile } from 'node:child_process'
import { promisify } from 'node:util'
import { expect, it } from 'vitest'

const run = promisify(execFile)

it.each(['', "await model.generate('The sky', { maxNewTokens: 1 })"])(
  'ends with its process, after %j',
  async (use) => {
    const script = `
    const { loadModel } = await import('./src/index.ts')
    const model = await loadModel('models/kvasir-tiny', { threads: 1 })
    ${use}
    console.log('done')`
    const program = ['--import', 'tsx', '--input-type=module', '-e', script]
    const { stdout } = await run(process.execPath, program, { timeout: 30_000 })
    expect(stdout).toBe('done\n')
  },
  40_000,
)

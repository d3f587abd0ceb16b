import { mkdtemp, readdir, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { writeDecoderCheckpoint } from '../../onnx/testing/decoder-checkpoint.ts'
import { writeDogeCheckpoint } from '../../onnx/testing/doge-checkpoint.ts'
import { runCaptured } from '../testing/captured.ts'

let root = ''
let model = ''
beforeAll(async () => {
  root = await mkdtemp(join(tmpdir(), 'kvasir-convert-'))
  model = (await writeDecoderCheckpoint('qwen3')).folder
})
afterAll(async () => {
  for (const folder of [root, model]) await rm(folder, { recursive: true })
})

const convert = (args: readonly string[], signal = new AbortController().signal) =>
  runCaptured(['convert', ...args], { signal })

it('writes a folder, shows progress and lists the files', async () => {
  const output = join(root, 'plain')
  const { code, stdout, stderr } = await convert(['--model', model, '--output', output])
  expect(code).toBe(0)
  expect(stdout).toMatch(/onnx\/model\.onnx +\d+ KiB\n/)
  expect(stderr).toMatch(/^Writing [\d,]+ bytes \.\.\.\n(Writing: .*\n)+$/)
  expect((await readdir(output)).sort()).toEqual(['config.json', 'generation_config.json', 'onnx', 'tokenizer.json'])
})

it('--json prints one object', async () => {
  const output = join(root, 'json')
  const { code, stdout } = await convert(['--model', model, '--output', output, '--dtype', 'int4', '--json'])
  expect(code).toBe(0)
  const result = JSON.parse(stdout)
  expect(result).toMatchObject({ model, output, dtype: 'int4', files: [{ path: 'onnx/model_q4.onnx' }, {}, {}, {}] })
  expect(result.bytes).toBeGreaterThan(result.files[0].bytes)
  expect(result.seconds).toBeGreaterThan(0)
})

it('refuses what it cannot do, with the reason', async () => {
  const doge = await writeDogeCheckpoint()
  const taken = await convert(['--model', model, '--output', root])
  expect(taken).toMatchObject({ code: 2, stdout: '' })
  expect(taken.stderr).toContain('expected a folder that does not exist yet')
  const dynamic = await convert(['--model', doge.folder, '--output', join(root, 'doge')])
  expect(dynamic).toMatchObject({ code: 1, stdout: '' })
  expect(dynamic.stderr).toContain('ONNX has no operator for that')
  expect((await convert(['--model', model, '--output', 'x', '--dtype', 'f8'])).stderr).toContain(
    'Allowed choices are f32',
  )
  expect((await convert(['--output', 'x'])).stderr).toContain("required option '--model <path>' not specified")
  await rm(doge.folder, { recursive: true })
})

it('leaves nothing behind when it is interrupted', async () => {
  const before = await readdir(root)
  const { code, stderr } = await convert(['--model', model, '--output', join(root, 'x')], AbortSignal.abort())
  expect({ code, stderr }).toEqual({ code: 130, stderr: 'interrupted\n' })
  expect(await readdir(root)).toEqual(before)
})

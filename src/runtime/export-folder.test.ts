/** What an exported folder consists of, and that none is left by half. */
import { readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { type ExportOptions, exportOnnx } from '../onnx/export/index.ts'
import type { DecoderCheckpointOptions } from '../onnx/testing/decoder-checkpoint.ts'
import { writeDogeCheckpoint } from '../onnx/testing/doge-checkpoint.ts'
import { exportFolders } from './testing/exported-folder.ts'

const made = exportFolders()
const { write, exported, folders } = made

describe('the written folder', () => {
  it('has the files of the tokenizer as they were', async () => {
    const checkpoint = await write('llama')
    await writeFile(join(checkpoint.folder, 'chat_template.jinja'), '{{ messages }}')
    const { folder, files } = await exported(checkpoint)
    expect(files.map(({ path }) => path)).toEqual([
      'onnx/model.onnx',
      'config.json',
      'generation_config.json',
      'tokenizer.json',
      'chat_template.jinja',
    ])
    for (const name of ['tokenizer.json', 'generation_config.json', 'chat_template.jinja']) {
      expect(await readFile(join(folder, name))).toEqual(await readFile(join(checkpoint.folder, name)))
    }
  })

  it('has any name that a folder can have', async () => {
    const output = join(made.root, 'ü'.repeat(127))
    expect(await exportOnnx((await write('llama')).folder, output)).toMatchObject({ folder: output })
    expect(await readdir(output)).toContain('config.json')
    await rm(output, { recursive: true })
  })

  it('replaces nothing', async () => {
    const checkpoint = await write('llama')
    const output = join(made.root, 'taken')
    await writeFile(output, 'mine')
    await expect(exportOnnx(checkpoint.folder, output)).rejects.toMatchObject({ code: 'invalid-argument' })
    expect(await readFile(output, 'utf8')).toBe('mine')
  })

  it('is not there at all after an interrupt or a failure', async () => {
    const before = await readdir(made.root)
    const output = join(made.root, 'interrupted')
    const checkpoint = await write('llama')
    const stop = new AbortController()
    const onProgress = () => stop.abort()
    await expect(exportOnnx(checkpoint.folder, output, { signal: stop.signal, onProgress })).rejects.toMatchObject({
      code: 'aborted',
    })
    const large = await write('llama', { change: (tensors) => tensors.get('lm_head.weight')!.values.fill(1e6) })
    await expect(exportOnnx(large.folder, output, { dtype: 'f16' })).rejects.toThrow(
      'expected numbers within 65504 for f16, got 1000000 in "lm_head.weight.f16.transposed"',
    )
    expect(await readdir(made.root)).toEqual(before)
  })

  const refused: Readonly<Record<string, readonly [DecoderCheckpointOptions, ExportOptions, string]>> = {
    'an unknown dtype': [{}, { dtype: 'int5' as 'int4' }, 'expected one of "f32", "f16", "int8", "int4" for dtype'],
    'an unknown option': [{}, { dtyp: 'f32' } as ExportOptions, 'unknown option "dtyp"'],
    'a head dim that the operator does not take': [
      { config: { head_dim: 24 } },
      {},
      'GroupQueryAttention needs a head dim and a rotary width in multiples of 16, got 24 and 24',
    ],
  }
  for (const [name, [options, given, message]] of Object.entries(refused)) {
    it(`is refused for ${name}`, async () => {
      await expect(exported(await write('llama', options), given)).rejects.toThrow(message)
    })
  }

  it('is refused for Doge, with the reason', async () => {
    const checkpoint = await writeDogeCheckpoint()
    folders.push(checkpoint.folder)
    await expect(exported(checkpoint)).rejects.toThrow('its attention chooses tokens by importance')
  })
})

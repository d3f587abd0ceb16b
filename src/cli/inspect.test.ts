/** `kvasir inspect` of a model; saved-cache.test.ts has that of a cache. */
import { expect, test } from 'vitest'
import { kvasir } from '../../test/fake-run.ts'

test('the model is an argument, or has its name', async () => {
  for (const args of [['x/y'], ['--model', 'x/y']]) {
    const { stdout, loaded } = await kvasir(['inspect', ...args, '--json'])
    expect([JSON.parse(stdout).model, loaded[0]?.path]).toEqual(['x/y', 'x/y'])
  }
})

test('inspect shows segments, attention nodes and KV bytes', async () => {
  const { stdout } = await kvasir(['inspect', 'some/model', '--json'])
  expect(JSON.parse(stdout)).toMatchObject({ model: 'some/model', kvBytesPerToken: 4, segments: [{ nodes: 3 }] })
  const text = await kvasir(['inspect'])
  expect(text.stdout).toContain('kvasir-tiny: fake, 12 parameters, 48 B')
  expect(text.stdout).toContain('512 KiB at 131,072 tokens')
  expect(text.stdout).toContain('Weights: 48 B in /fake/model.safetensors')
  expect(text.stdout).toContain('Policy full: nothing else is known')
})

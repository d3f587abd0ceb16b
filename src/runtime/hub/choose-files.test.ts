import { describe, expect, it } from 'vitest'
import { chooseFiles } from './choose-files.ts'
import { hubSettings } from './settings.ts'

describe('the environment', () => {
  it('says where models are kept, from the nearest variable on', () => {
    const folderOf = (env: NodeJS.ProcessEnv) => hubSettings(env).folder
    expect(folderOf({ KVASIR_CACHE: '/k', HF_HOME: '/h' })).toBe('/k/hub')
    expect(folderOf({ HF_HUB_CACHE: '/c', HF_HOME: '/h' })).toBe('/c')
    expect(folderOf({ HF_HOME: '/h' })).toBe('/h/hub')
    expect(folderOf({ XDG_CACHE_HOME: '/x' })).toBe('/x/huggingface/hub')
    expect(hubSettings({}).endpoint).toBe('https://huggingface.co')
    expect(hubSettings({ HF_ENDPOINT: 'http://mirror/' }).endpoint).toBe('http://mirror')
    expect([{ HF_HUB_OFFLINE: 'ON' }, { HF_HUB_OFFLINE: '0' }, {}].map((env) => hubSettings(env).isOffline)).toEqual([
      true,
      false,
      false,
    ])
  })
})

describe('the choice of files', () => {
  const texts = ['config.json', 'tokenizer.json']
  const all = [
    ...texts,
    'model-00001-of-00002.safetensors',
    'model-00002-of-00002.safetensors',
    'model.safetensors.index.json',
    'onnx/model.onnx',
    'onnx/model.onnx_data',
    'onnx/model.onnx_data_1',
    'onnx/model_q4.onnx',
    'onnx/model_q4f16.onnx',
    'onnx/model_q4f16.onnx_data',
    'pytorch_model.bin',
  ]
  const choose = (
    paths: readonly string[],
    choice: Omit<Parameters<typeof chooseFiles>[2], 'config'> & { config?: object } = {},
  ) => chooseFiles('a/b', paths, { config: {}, ...choice } as Parameters<typeof chooseFiles>[2]).slice(2)

  it('is one form of the weights', () => {
    expect(choose(all, { dtype: 'fp32' })).toEqual([
      'onnx/model.onnx',
      'onnx/model.onnx_data',
      'onnx/model.onnx_data_1',
    ])
    expect(choose(all, { dtype: 'q4' })).toEqual(['onnx/model_q4.onnx'])
    expect(choose(all, { dtype: 'q4f16' })).toEqual(['onnx/model_q4f16.onnx', 'onnx/model_q4f16.onnx_data'])
    const shards = all.slice(2, 5)
    expect(choose(all, { config: { model_type: 'llama' } })).toEqual(shards)
    expect(choose(all, { quantize: 'int8' })).toEqual(shards)
    expect(choose(all, { config: { model_type: 'unheard-of' } })).toEqual(all.slice(5, 8))
    const recommended = { model_type: 'unheard-of', 'transformers.js_config': { dtype: 'q4' } }
    expect(choose(all, { config: recommended })).toEqual(['onnx/model_q4.onnx'])
    expect(choose([...texts, 'model.safetensors'])).toEqual(['model.safetensors'])
    expect(choose([...texts, 'decoder_model_merged_quantized.onnx'])).toEqual(['decoder_model_merged_quantized.onnx'])
  })

  it('names what is missing', () => {
    expect(() => choose(['config.json', 'model.safetensors'])).toThrow(
      'expected tokenizer.json in a/b, got config.json, model.safetensors',
    )
    expect(() => choose([...texts, 'pytorch_model.bin'])).toThrow(
      'expected model.safetensors or onnx/model.onnx in a/b',
    )
    expect(() => choose(all, { dtype: 'bnb4' })).toThrow('got fp32, q4f16, q4')
  })
})

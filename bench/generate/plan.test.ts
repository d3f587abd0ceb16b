/** What is planned from options, and what memory it is thought to take. Ratios are of report.ts. */
import { expect, test } from 'vitest'
import { candidateNames } from './contract.ts'
import { candidatesOf, type GenerateBenchOptions, neededBytes, planBench } from './plan.ts'
import { type Measurement, summarise, summariseLoad } from './report.ts'

test('the whole bench by default, a small one when quick', () => {
  const { shapes, weights, tasks, window, repeat } = planBench({})
  expect({ shapes, weights, window, repeat }).toEqual({
    ...{ shapes: ['smollm2-135m', 'qwen3-0.6b'], weights: ['f32', 'int8', 'int4'], window: 2048, repeat: 3 },
  })
  const decode = [1024, 8192, 32_768].map((tokens) => ({ kind: 'decode', tokens }))
  expect(tasks).toEqual([...decode, { kind: 'prefill', tokens: 4096 }])
  expect(planBench({ isQuick: true })).toMatchObject({ shapes: ['tiny'], repeat: 1 })
})

const refused: Readonly<Record<string, readonly [object, string]>> = {
  'an unknown option': [{ context: [1] }, 'unknown option "context" for benchGenerate (did you mean "contexts"?)'],
  'an unknown shape': [{ shapes: ['smollm-135m'] }, '(did you mean "smollm2-135m"?)'],
  'unknown weights': [{ weights: ['int5'] }, '(did you mean "int8"?)'],
  'a context beyond the positions': [{ contexts: [50_000] }, 'expected an integer in 1..40896 for context, got 50000'],
  'an unknown candidate': [{ candidates: ['kvasi'] }, '(did you mean "kvasir"?)'],
  'an unknown task': [{ tasks: ['decod'] }, '(did you mean "decode"?)'],
  'no rounds': [{ repeat: 0 }, 'expected an integer of at least 1 for repeat, got 0'],
  'half a window': [{ window: 0.5 }, 'expected an integer of at least 1 for window, got 0.5'],
}
for (const [name, [options, message]] of Object.entries(refused)) {
  test(`refused: ${name}`, () => {
    expect(() => planBench(options as GenerateBenchOptions)).toThrow(message)
  })
}

test('tasks and candidates can be chosen', () => {
  const { tasks, candidates } = planBench({ tasks: ['decode'], contexts: [512], candidates: ['kvasir'] })
  expect({ tasks, candidates }).toEqual({ tasks: [{ kind: 'decode', tokens: 512 }], candidates: ['kvasir'] })
})

test('chunks are for prompts', () => {
  expect(candidatesOf({ kind: 'decode', tokens: 8 }, candidateNames)).not.toContain('onnxruntime-chunks')
  expect(candidatesOf({ kind: 'prefill', tokens: 8 }, candidateNames)).toContain('onnxruntime-chunks')
})

test('memory: K and V twice in onnxruntime, half in llama.cpp, a window of them at most, logits of a whole prompt', () => {
  const model = { shape: 'qwen3-0.6b', window: 2048, fileBytes: 1000 } as const
  const decode = { kind: 'decode', tokens: 32_768 } as const
  const perToken = 2 * 4 * 28 * 8 * 128
  expect(neededBytes('kvasir', decode, model)).toBe(2000 + perToken * 32_768)
  expect(neededBytes('kvasir-window', decode, model)).toBe(2000 + perToken * 2048)
  expect(neededBytes('onnxruntime', decode, model)).toBe(2000 + 2 * perToken * 32_768)
  expect(neededBytes('node-llama-cpp', decode, model)).toBe(2000 + (perToken / 2) * 32_768)
  const prefill = { kind: 'prefill', tokens: 4096 } as const
  const logits = (tokens: number) => 2 * 4 * 151_936 * tokens
  expect(neededBytes('onnxruntime', prefill, model)).toBe(2000 + 2 * perToken * 4096 + logits(4096))
  expect(neededBytes('onnxruntime-chunks', prefill, model)).toBe(2000 + 2 * perToken * 4096 + logits(512))
})

const measurement = (ms: number, peakBytes = 10, loadMs = 1): Measurement => ({ ms, peakBytes, loadMs })

test('ratios are of one round, against the better way of onnxruntime', () => {
  const rounds = [
    new Map([
      ['kvasir', measurement(2, 30, 3)],
      ['onnxruntime', measurement(8, 20, 2)],
      ['onnxruntime-chunks', measurement(6, 40, 9)],
    ] as const),
    new Map([
      ['kvasir', measurement(10, 30, 30)],
      ['onnxruntime', measurement(10, 30, 10)],
    ] as const),
  ]
  const [ours] = summarise(rounds)
  expect(ours).toEqual({
    ...{ candidate: 'kvasir', ms: { median: 6, low: 2, high: 10 }, peakBytes: { median: 30, low: 30, high: 30 } },
    ...{ speedup: (3 + 1) / 2, peakRatio: (1.5 + 1) / 2 },
  })
  expect(summariseLoad(rounds)[0]).toMatchObject({ candidate: 'kvasir', ratio: (1.5 + 3) / 2 })
})

test('without onnxruntime there is nothing to compare with', () => {
  expect(summarise([new Map([['kvasir', measurement(2)]] as const)])[0]).toMatchObject({
    speedup: null,
    peakRatio: null,
  })
})

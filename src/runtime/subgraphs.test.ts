import { describe, expect, it, vi } from 'vitest'
import { make } from '../onnx/codec.ts'
import type { OnnxModel, OnnxNode } from '../onnx/schema.ts'
import { groupQuery } from '../onnx/testing/published/fused.ts'
import { loopedAttention } from '../onnx/testing/published/looped.ts'
import { fusedDecoder, plainDecoder } from '../onnx/testing/published/scaffold.ts'
import { stepLengths } from '../onnx/testing/published/steps.ts'
import { createCustom } from '../onnx/testing/published/styles.ts'
import {
  batchDeviation,
  cutLogits,
  deviation,
  temporaryFolders,
  tokensOf,
  uncutLogits,
  withModel,
} from './testing/published-folder.ts'

const writeFolder = temporaryFolders()

const prompt = 21
const tokens = tokensOf(prompt + 64)

describe('a decoder whose recurrent layers are subgraphs', () => {
  it.each([
    ['scan', [1]],
    ['scan', [0, 2]],
    ['loop', [1]],
    ['while', [1]],
    ['while', [0, 2]],
    ['if', [1]],
    ['if', [0, 2]],
  ] as const)(
    'gives the logits of the uncut graph, in pieces and in batches: %s, attention in %j',
    async (kind, layers) => {
      const { folder, file } = await writeFolder(
        createCustom((w) => plainDecoder(w, loopedAttention(w, kind, layers)), { layers: 3 }),
      )
      const expected = await uncutLogits(file, tokens, prompt)
      await withModel(folder, { chunkSize: 16 }, async (model) => {
        const recurrent = [0, 1, 2].filter((layer) => !(layers as readonly number[]).includes(layer))
        expect(model.describe().states!.map(({ name }) => name)).toEqual(recurrent.map((i) => `past_recurrent.${i}`))
        expect(deviation(await cutLogits(model, tokens, prompt), expected)).toBeLessThanOrEqual(1e-4)
        expect(deviation(await cutLogits(model, tokens, 1), expected)).toBeLessThanOrEqual(1e-4)
        expect(await batchDeviation(model, [5, 1, 40])).toBeLessThanOrEqual(1e-5)
      })
    },
  )
})

const isAttention = ({ opType, output }: OnnxNode, layer: number): boolean =>
  opType === 'GroupQueryAttention' && output[1] === `present.${layer}.key`

/** The attention of a layer, inside of both branches of an If. */
function withinIf(model: OnnxModel, layer: number, condition: string): OnnxModel {
  const graph = model.graph!
  const wrap = (node: OnnxNode): OnnxNode => {
    const branch = (name: string) =>
      make('Graph', {
        name,
        node: [{ ...node, output: node.output.map((value) => `${name} ${value}`) }],
        output: node.output.map((value) => graph.output.find((info) => info.name === value) ?? make('ValueInfo', {})),
      })
    const attribute = ['then_branch', 'else_branch'].map((name) => {
      const g = branch(name)
      const output = node.output.map((value, i) => ({ ...g.output[i]!, name: `${name} ${value}` }))
      return make('Attribute', { name, type: 5, g: { ...g, output } })
    })
    return make('Node', { name: 'choice', opType: 'If', input: [condition], output: node.output, attribute })
  }
  return {
    ...model,
    graph: { ...graph, node: graph.node.map((node) => (isAttention(node, layer) ? wrap(node) : node)) },
  }
}

describe('an attention inside of a subgraph', () => {
  const decoder = (layers: number): OnnxModel =>
    createCustom(
      (w) => {
        w.bools('always', [true], [])
        fusedDecoder(w, groupQuery(w, {}))
      },
      { layers },
    )

  it('stays with ONNX Runtime beside others, with a warning, and gives the same logits', async () => {
    const warn = vi.spyOn(process, 'emitWarning').mockImplementation(() => undefined)
    const { folder, file } = await writeFolder(withinIf(decoder(3), 1, 'always'))
    const expected = await uncutLogits(file, tokens, prompt)
    await withModel(folder, { chunkSize: 16 }, async (model) => {
      expect(warn.mock.calls.map(([text]) => String(text)).join()).toContain('past_key_values.1.key')
      expect(model.describe().attention).toHaveLength(2)
      expect(deviation(await cutLogits(model, tokens, prompt), expected)).toBeLessThanOrEqual(1e-4)
    })
    warn.mockRestore()
  })

  it('is refused where there is no other', async () => {
    const { folder } = await writeFolder(withinIf(decoder(1), 0, 'always'))
    await expect(withModel(folder, {}, async () => undefined)).rejects.toMatchObject({ code: 'unsupported' })
  })
})

describe('rows before the head that go through an If', () => {
  /** The condition is constant, and the node reads nothing else by itself. */
  const throughIf = (then: readonly [string, ...number[]], other: readonly [string, ...number[]]): OnnxModel =>
    createCustom((w) => {
      w.bools('always', [true], [])
      fusedDecoder(w, groupQuery(w, {}))
      const [head, cast] = w.nodes.splice(-2)
      const branch = (name: string, [opType, ...given]: readonly [string, ...number[]]) => {
        const input = [head!.input[0]!, ...given.map((value) => w.integers([value]))]
        const tensorType = make('TensorType', { elemType: 1 })
        const output = [make('ValueInfo', { name, type: make('Type', { tensorType }) })]
        return { graph: make('Graph', { name, node: [make('Node', { opType, input, output: [name] })], output }) }
      }
      w.node('If', ['always'], 'rows', {
        attributes: { then_branch: branch('one', then), else_branch: branch('two', other) },
      })
      w.nodes.push({ ...head!, input: ['rows', head!.input[1]!] }, cast!)
    })

  it('are run as the graph has it, though their number is not known before', async () => {
    const warn = vi.spyOn(process, 'emitWarning').mockImplementation(() => undefined)
    const { folder, file } = await writeFolder(throughIf(['Neg'], ['Slice', -1, 1 << 30, 1]))
    const expected = await uncutLogits(file, tokens, prompt)
    await withModel(folder, { chunkSize: 16 }, async (model) => {
      expect(deviation(await cutLogits(model, tokens, prompt), expected)).toBeLessThanOrEqual(1e-4)
    })
    warn.mockRestore()
  })

  it('may be multiplied with what an If makes of a table that is cut to the length so far', async () => {
    const warn = vi.spyOn(process, 'emitWarning').mockImplementation(() => undefined)
    const model = createCustom((w) => {
      w.bools('always', [true], [])
      fusedDecoder(w, groupQuery(w, {}))
      const [head, cast] = w.nodes.splice(-2)
      const end = w.node('Unsqueeze', [stepLengths(w).total, w.integers([0])])
      const table = w.tensor(
        'table',
        Float32Array.from({ length: 256 }, (_, i) => 1 + i / 64),
        [256],
      )
      const sofar = w.node('Slice', [table, w.integers([0]), end, w.integers([0])])
      const branch = (name: string) => {
        const tensorType = make('TensorType', { elemType: 1 })
        const output = [make('ValueInfo', { name, type: make('Type', { tensorType }) })]
        return {
          graph: make('Graph', {
            name,
            node: [make('Node', { opType: 'ReduceMean', input: [sofar], output: [name] })],
            output,
          }),
        }
      }
      w.node('If', ['always'], 'mean', { attributes: { then_branch: branch('one'), else_branch: branch('two') } })
      w.nodes.push({ ...head!, input: [w.node('Mul', [head!.input[0]!, 'mean']), head!.input[1]!] }, cast!)
    })
    const { folder, file } = await writeFolder(model)
    const expected = await uncutLogits(file, tokens, prompt)
    await withModel(folder, { chunkSize: 32 }, async (loaded) => {
      expect(deviation(await cutLogits(loaded, tokens, prompt), expected)).toBeLessThanOrEqual(1e-4)
    })
    warn.mockRestore()
  })

  it('are not taken for constants', async () => {
    const { folder } = await writeFolder(throughIf(['CumSum', 1], ['CumSum', 1]))
    const error = withModel(folder, {}, async () => undefined)
    await expect(error).rejects.toThrow('the logits of its tokens one by one')
  })
})

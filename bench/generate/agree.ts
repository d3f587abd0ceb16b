/** Runs all candidates over one text before anything is timed, and holds their logits to one another. */
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { KvasirError } from '../../src/tensor/error.ts'
import { type Choices, checkAgreement, deviation, f32Tolerance, mostOfDeviation } from './agreement.ts'
import type { Agreement, CandidateName, WeightType } from './contract.ts'
import type { Answer, Task, Visitor } from './messages.ts'

/** Tokens that are read, then chosen one by one by onnxruntime. */
const text = { prompt: 48, steps: 16 }

type Outcome = Answer | { readonly kind: 'skipped'; readonly reason: string }

/** One process of a visitor. */
export type Visit = (visitor: Visitor, task: Task) => Promise<Outcome>

export interface AgreeOptions {
  readonly candidates: readonly CandidateName[]
  readonly weights: WeightType
  readonly window: number
  readonly visit: Visit
}

/** Who is compared: each by itself once, whatever the tasks are. */
export function comparedOf({ candidates, window }: Omit<AgreeOptions, 'visit' | 'weights'>) {
  const compared = Object.keys(mostOfDeviation) as (keyof typeof mostOfDeviation)[]
  // A window that is shorter than the text is no longer the same model.
  const isShort = window < text.prompt + text.steps
  return compared.filter((name) => candidates.includes(name) && !(name === 'kvasir-window' && isShort))
}

/** @throws KvasirError `internal` when one of them computes something else, or nothing */
export async function agree(options: AgreeOptions): Promise<Agreement[]> {
  const temporary = mkdtempSync(join(tmpdir(), 'kvasir-bench-'))
  const file = join(temporary, 'logits.f32')
  const choose = async (visitor: Visitor, tokens?: readonly number[]): Promise<Choices> => {
    const answer = await options.visit(visitor, { kind: 'agree', ...text, file, ...(tokens && { tokens }) })
    if (answer.kind === 'agreed') return { tokens: answer.tokens, logits: readFloats(file) }
    const reason = answer.kind === 'skipped' ? answer.reason : answer.kind
    throw new KvasirError('internal', 'bench', `${visitor} can't run this model: ${reason}`)
  }
  try {
    const first = await choose('onnxruntime')
    const isPlain = options.weights === 'f32'
    const expected = isPlain ? first : await choose('reference', first.tokens)
    const own = isPlain ? 0 : deviation(first, expected)
    const found: Agreement[] = isPlain ? [] : [checkAgreement('onnxruntime', first, expected, own)]
    for (const name of comparedOf(options)) {
      const tolerance = isPlain && name !== 'node-llama-cpp' ? f32Tolerance : allowed(own, name)
      found.push(checkAgreement(name, await choose(name, first.tokens), expected, tolerance))
    }
    return found
  } finally {
    rmSync(temporary, { recursive: true, force: true })
  }
}

/** Keys and values in f16, where everything else is f32. */
const halfTolerance = 2e-3

function allowed(own: number, name: keyof typeof mostOfDeviation): number {
  return own === 0 ? halfTolerance : own * mostOfDeviation[name]
}

function readFloats(file: string): Float32Array {
  const { buffer, byteOffset, byteLength } = readFileSync(file)
  return new Float32Array(buffer, byteOffset, byteLength / 4)
}

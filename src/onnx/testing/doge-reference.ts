/** Doge in plain f64: the specification that the graph, the cut and the caches are compared with. Slow and obvious. */
import type { DogeCheckpoint } from './doge-checkpoint.ts'

type Vector = number[]

/**
 * Logits after each token, `[T][vocab]`: every query sees, for each KV head, the `window` most important of the tokens
 * up to itself (newer wins on equal importance).
 */
export function dogeLogits({ sizes, tensors }: DogeCheckpoint, tokens: readonly number[], theta = 10000): Vector[] {
  const { layers, hidden, vocab, tied } = sizes
  const weights = { get: (name: string) => tensors.get(name)!.values }
  const table = weights.get('model.embed_tokens.weight')
  let stream = tokens.map((token) => Array.from(table.subarray(token * hidden, (token + 1) * hidden)))
  for (let n = 0; n < layers; n++) {
    const prefix = `model.layers.${n}`
    const scale = (name: string) => weights.get(`${prefix}.${name}`)
    const normed = stream.map((x) => rmsNorm(x, scale('input_layernorm.weight')))
    const attended = selfAttention(sizes, tensors, `${prefix}.self_attn`, normed, theta)
    stream = stream.map((x, t) => x.map((value, i) => scale('input_residual')[i]! * value + attended[t]![i]!))
    stream = stream.map((x) => {
      const normed = rmsNorm(x, scale('post_attention_layernorm.weight'))
      const routed = routedExperts(sizes, tensors, `${prefix}.mlp`, normed)
      const fed = feedForward(tensors, `${prefix}.mlp`, normed).map((value, i) => value + routed[i]!)
      return x.map((value, i) => scale('post_attention_residual')[i]! * value + fed[i]!)
    })
  }
  const head = tied && !tensors.has('lm_head.weight') ? table : weights.get('lm_head.weight')
  return stream.map((x) => matrixVector(head, vocab, rmsNorm(x, weights.get('model.norm.weight'))))
}

type Tensors = DogeCheckpoint['tensors']

function selfAttention(
  sizes: DogeCheckpoint['sizes'],
  tensors: Tensors,
  prefix: string,
  inputs: Vector[],
  theta: number,
): Vector[] {
  const { heads, kvHeads, headDim, window, exponential } = sizes
  const normOf = (name: string) => tensors.get(`${prefix}.${name}_norm.weight`)!.values
  const project = (x: Vector, name: string, count: number): Vector[] => {
    const y = linear(tensors, `${prefix}.${name}_proj`, x)
    return Array.from({ length: count }, (_, h) => y.slice(h * headDim, (h + 1) * headDim))
  }
  const queries = inputs.map((x, t) => project(x, 'q', heads).map((q) => rotate(rmsNorm(q, normOf('q')), t, theta)))
  const keys = inputs.map((x, t) => project(x, 'k', kvHeads).map((k) => rotate(rmsNorm(k, normOf('k')), t, theta)))
  const values = inputs.map((x) => project(x, 'v', kvHeads))
  const slopes = tensors.get(`${prefix}.A`)!.values
  const importance = values.map((v) =>
    linear(tensors, `${prefix}.dt_proj`, v.flat()).map((dt, k) => {
      const score = slopes[k]! * Math.log1p(Math.exp(dt))
      return exponential ? Math.exp(score) : score
    }),
  )
  return inputs.map((_, t) => {
    const output = Array.from({ length: heads }, (_, h) => {
      const k = Math.floor(h / (heads / kvHeads))
      const rows = mostImportant(
        importance.slice(0, t + 1).map((row) => row[k]!),
        window,
      )
      const logits = rows.map((j) => dot(queries[t]![h]!, keys[j]![k]!) / Math.sqrt(headDim) + importance[j]![k]!)
      const weights = softmax(logits)
      return Array.from({ length: headDim }, (_, d) =>
        rows.reduce((sum, j, n) => sum + weights[n]! * values[j]![k]![d]!, 0),
      )
    })
    return linear(tensors, `${prefix}.o_proj`, output.flat())
  })
}

function mostImportant(scores: Vector, window: number): number[] {
  const order = scores.map((_, j) => j).sort((a, b) => scores[b]! - scores[a]! || b - a)
  return order.slice(0, window)
}

function feedForward(tensors: Tensors, prefix: string, x: Vector): Vector {
  const gate = linear(tensors, `${prefix}.gate_proj`, x)
  const up = linear(tensors, `${prefix}.up_proj`, x)
  const product = gate.map((g, i) => (g / (1 + Math.exp(-g))) * up[i]!)
  return linear(tensors, `${prefix}.down_proj`, product)
}

/** DogeCDMoE.forward for one token: every pair of keys is an expert, and the best of all pairs are mixed. */
function routedExperts(sizes: DogeCheckpoint['sizes'], tensors: Tensors, prefix: string, x: Vector): Vector {
  const { experts, expertsPerToken } = sizes
  if (experts === 0) return x.map(() => 0)
  const scores = linear(tensors, `${prefix}.router_gate`, x)
  const numKeys = scores.length / 2
  const pairs = Array.from({ length: numKeys ** 2 }, (_, expert) => {
    return { expert, score: scores[Math.floor(expert / numKeys)]! + scores[numKeys + (expert % numKeys)]! }
  })
  const best = pairs.sort((a, b) => b.score - a.score).slice(0, expertsPerToken)
  const routing = softmax(best.map(({ score }) => score))
  const rowOf = (table: string, row: number): Vector =>
    Array.from(tensors.get(`${prefix}.${table}_embed.weight`)!.values.slice(row * x.length, (row + 1) * x.length))
  const sum = x.map(() => 0)
  for (const [i, { expert }] of best.entries()) {
    const product = dot(rowOf('down', expert), x)
    const weight = (product / (1 + Math.exp(-product))) * routing[i]!
    for (const [d, value] of rowOf('up', expert).entries()) sum[d]! += weight * value
  }
  return sum
}

function linear(tensors: Tensors, prefix: string, x: Vector): Vector {
  const { values, shape } = tensors.get(`${prefix}.weight`)!
  const bias = tensors.get(`${prefix}.bias`)?.values
  return matrixVector(values, shape[0]!, x).map((y, i) => y + (bias?.[i] ?? 0))
}

/** The matrix is `[rows, x.length]`. */
function matrixVector(matrix: Float32Array, rows: number, x: Vector): Vector {
  return Array.from({ length: rows }, (_, i) => x.reduce((sum, value, j) => sum + matrix[i * x.length + j]! * value, 0))
}

function rmsNorm(x: Vector, weight: Float32Array): Vector {
  const scale = 1 / Math.sqrt(dot(x, x) / x.length + 1e-6)
  return x.map((value, i) => value * scale * weight[i]!)
}

/** Half split: components i and i + D/2 turn together. */
function rotate(x: Vector, position: number, theta: number): Vector {
  const half = x.length / 2
  return x.map((value, d) => {
    const angle = position * theta ** (-(d % half) / half)
    const other = d < half ? -x[d + half]! : x[d - half]!
    return value * Math.cos(angle) + other * Math.sin(angle)
  })
}

function softmax(logits: Vector): Vector {
  const largest = Math.max(...logits)
  const weights = logits.map((logit) => Math.exp(logit - largest))
  const total = weights.reduce((sum, weight) => sum + weight, 0)
  return weights.map((weight) => weight / total)
}

function dot(a: Vector, b: Vector): number {
  return a.reduce((sum, value, i) => sum + value * b[i]!, 0)
}

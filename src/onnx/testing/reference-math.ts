/** The arithmetic of the references: plain f64 on arrays of numbers, slow and obvious. */

export type Vector = number[]

/** The matrix is `[rows, x.length]`. */
export function matrixVector(matrix: ArrayLike<number>, rows: number, x: Vector): Vector {
  return Array.from({ length: rows }, (_, i) => x.reduce((sum, value, j) => sum + matrix[i * x.length + j]! * value, 0))
}

export function dot(a: Vector, b: Vector): number {
  return a.reduce((sum, value, i) => sum + value * b[i]!, 0)
}

export function add(a: Vector, b: Vector): Vector {
  return a.map((value, i) => value + b[i]!)
}

export function softmax(logits: Vector): Vector {
  const largest = Math.max(...logits)
  const weights = logits.map((logit) => Math.exp(logit - largest))
  const total = weights.reduce((sum, weight) => sum + weight, 0)
  return weights.map((weight) => weight / total)
}

export function rmsNorm(x: Vector, weight: Vector, epsilon: number): Vector {
  const scale = 1 / Math.sqrt(dot(x, x) / x.length + epsilon)
  return x.map((value, i) => value * scale * weight[i]!)
}

/** Half split: components i and i + R turn together, the first 2 R of them. */
export function rotate(x: Vector, position: number, inverseFrequencies: Vector): Vector {
  const pairs = inverseFrequencies.length
  return x.map((value, d) => {
    if (d >= 2 * pairs) return value
    const angle = position * inverseFrequencies[d % pairs]!
    const other = d < pairs ? -x[d + pairs]! : x[d - pairs]!
    return value * Math.cos(angle) + other * Math.sin(angle)
  })
}

export const silu = (x: number): number => x / (1 + Math.exp(-x))

export const geluTanh = (x: number): number =>
  0.5 * x * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (x + 0.044715 * x ** 3)))

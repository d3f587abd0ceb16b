/** One hidden layer of ReLUs, by Adam over shuffled batches. The same seed gives the same numbers. */
import { createRandom } from '../../src/runtime/random.ts'
import type { Fitted } from './fitted.ts'
import type { Samples } from './samples.ts'
import { type Standard, standardise, toPlain } from './standardise.ts'

export interface HiddenOptions {
  /** N */
  readonly hidden: number
  readonly epochs: number
  readonly seed: number
}

const batchSize = 64
const learningRate = 5e-3
/** Of squared weights: the layer has more numbers than a short text has tokens. */
const decay = 1e-4

export function fitHidden(samples: Samples, { hidden, epochs, seed }: HiddenOptions): Fitted {
  const standard = standardise(samples)
  const network = new Network(standard, hidden, seed)
  const order = Uint32Array.from({ length: samples.count }, (_, n) => n)
  const random = createRandom(seed)
  const steps = epochs * Math.ceil(samples.count / batchSize)
  for (let step = 0, epoch = 0; epoch < epochs; epoch++) {
    shuffle(order, random)
    for (let start = 0; start < order.length; start += batchSize) {
      // The rate falls to nothing in a straight line.
      network.learn(order.subarray(start, start + batchSize), learningRate * (1 - step++ / steps))
    }
  }
  return network.fitted()
}

class Network {
  readonly #standard: Standard
  readonly #hidden: number
  /** `[N, F]`, then `[N]` biases, then `[N]` output weights */
  readonly #numbers: Float64Array
  readonly #gradient: Float64Array
  readonly #first: Float64Array
  readonly #second: Float64Array
  readonly #active: Float64Array
  #steps = 0

  constructor(standard: Standard, hidden: number, seed: number) {
    const size = hidden * (standard.numFeatures + 2)
    const random = createRandom(seed + 1)
    this.#standard = standard
    this.#hidden = hidden
    this.#numbers = new Float64Array(size)
    const inner = Math.sqrt(6 / standard.numFeatures)
    for (let i = 0; i < hidden * standard.numFeatures; i++) this.#numbers[i] = (2 * random() - 1) * inner
    const outer = Math.sqrt(6 / hidden)
    for (let n = 0; n < hidden; n++) this.#numbers[size - hidden + n] = (2 * random() - 1) * outer
    this.#gradient = new Float64Array(size)
    this.#first = new Float64Array(size)
    this.#second = new Float64Array(size)
    this.#active = new Float64Array(hidden)
  }

  /** One step of Adam on the mean squared error of some samples. */
  learn(batch: Uint32Array, rate: number): void {
    const { targets, weights } = this.#standard
    this.#gradient.fill(0)
    for (const n of batch) {
      const error = this.#predict(n) - (targets[n] as number)
      this.#addGradient(n, (error * (weights[n] as number)) / batch.length)
    }
    this.#steps++
    const [beta1, beta2] = [0.9, 0.999]
    const size = rate * (Math.sqrt(1 - beta2 ** this.#steps) / (1 - beta1 ** this.#steps))
    for (let i = 0; i < this.#numbers.length; i++) {
      const slope = this.#gradient[i]! + decay * this.#numbers[i]!
      this.#first[i] = beta1 * this.#first[i]! + (1 - beta1) * slope
      this.#second[i] = beta2 * this.#second[i]! + (1 - beta2) * slope * slope
      this.#numbers[i]! -= (size * this.#first[i]!) / (Math.sqrt(this.#second[i]!) + 1e-8)
    }
  }

  #predict(n: number): number {
    const { rows, numFeatures: F } = this.#standard
    const [biases, outputs] = [this.#hidden * F, this.#hidden * (F + 1)]
    let total = 0
    for (let h = 0; h < this.#hidden; h++) {
      let sum = this.#numbers[biases + h]!
      for (let f = 0; f < F; f++) sum += this.#numbers[h * F + f]! * rows[n * F + f]!
      this.#active[h] = Math.max(0, sum)
      total += this.#active[h]! * this.#numbers[outputs + h]!
    }
    return total
  }

  /** @param error of the sample that was predicted last */
  #addGradient(n: number, error: number): void {
    const { rows, numFeatures: F } = this.#standard
    const [biases, outputs] = [this.#hidden * F, this.#hidden * (F + 1)]
    for (let h = 0; h < this.#hidden; h++) {
      this.#gradient[outputs + h]! += error * this.#active[h]!
      if (this.#active[h]! <= 0) continue
      const inner = error * this.#numbers[outputs + h]!
      this.#gradient[biases + h]! += inner
      for (let f = 0; f < F; f++) this.#gradient[h * F + f]! += inner * rows[n * F + f]!
    }
  }

  fitted(): Fitted {
    const { numFeatures: F } = this.#standard
    const N = this.#hidden
    const weight = new Float32Array(N * F)
    const bias = new Float32Array(N)
    for (let h = 0; h < N; h++) {
      const plain = toPlain(this.#standard, this.#numbers.subarray(h * F, (h + 1) * F))
      weight.set(plain.weight, h * F)
      bias[h] = plain.bias + this.#numbers[N * F + h]!
    }
    return { hidden: N, weight, bias, output: Float32Array.from(this.#numbers.subarray(N * (F + 1))) }
  }
}

function shuffle(order: Uint32Array, random: () => number): void {
  for (let i = order.length - 1; i > 0; i--) {
    const j = Math.floor(random() * (i + 1))
    const one = order[i] as number
    order[i] = order[j] as number
    order[j] = one
  }
}

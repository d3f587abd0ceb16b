/**
 * Integers that follow from the size of a step: c + t * T + p * P, with T new tokens after P earlier ones. Dimensions
 * and the arithmetic on shapes in published graphs are of this form, batch being 1; what is not is `undefined`.
 */

export interface Linear {
  readonly c: number
  readonly t: number
  readonly p: number
}

/** One dimension or one element of a shape; undefined: not known. */
export type Dim = Linear | undefined

export const constant = (c: number): Linear => ({ c, t: 0, p: 0 })
export const newTokens: Linear = { c: 0, t: 1, p: 0 }
export const pastTokens: Linear = { c: 0, t: 0, p: 1 }
export const allTokens: Linear = { c: 0, t: 1, p: 1 }

export function isConstant(dim: Dim): dim is Linear & { readonly t: 0; readonly p: 0 } {
  return dim !== undefined && dim.t === 0 && dim.p === 0
}

/** True for exactly T. */
export function isNewTokens(dim: Dim): boolean {
  return same(dim, newTokens)
}

/** The number behind a constant. */
export function numberOf(dim: Dim): number | undefined {
  return isConstant(dim) ? dim.c : undefined
}

/** Known to be equal. */
export function same(a: Dim, b: Dim): boolean {
  return a !== undefined && b !== undefined && a.c === b.c && a.t === b.t && a.p === b.p
}

export function add(a: Dim, b: Dim): Dim {
  return a && b && { c: a.c + b.c, t: a.t + b.t, p: a.p + b.p }
}

export function subtract(a: Dim, b: Dim): Dim {
  return add(a, times(b, constant(-1)))
}

/** Undefined when neither is a constant: the product would not be linear. */
export function times(a: Dim, b: Dim): Dim {
  if (!a || !b) return undefined
  const [factor, other] = isConstant(a) ? [a.c, b] : [b.c, a]
  if (!isConstant(a) && !isConstant(b)) return undefined
  return { c: factor * other.c, t: factor * other.t, p: factor * other.p }
}

/** The exact quotient, where there is one. */
export function divide(a: Dim, b: Dim): Dim {
  if (!a || !b) return undefined
  if (same(a, b)) return constant(1)
  if (isConstant(b)) {
    const parts = [a.c / b.c, a.t / b.c, a.p / b.c] as const
    return parts.every(Number.isInteger) ? { c: parts[0], t: parts[1], p: parts[2] } : undefined
  }
  // k * b / b
  const factor = b.t !== 0 ? a.t / b.t : a.p / b.p
  return Number.isInteger(factor) && same(a, times(constant(factor), b)) ? constant(factor) : undefined
}

/** What numpy broadcasting makes of two dimensions; an unknown one is taken to be the other unless that is 1. */
export function broadcastDim(a: Dim, b: Dim): Dim {
  if (numberOf(a) === 1) return b
  if (numberOf(b) === 1) return a
  return a ?? b
}

export function product(dims: readonly Dim[]): Dim {
  return dims.reduce<Dim>(times, constant(1))
}

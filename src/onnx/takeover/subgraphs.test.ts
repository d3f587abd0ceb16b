import { expect, it } from 'vitest'
import { make } from '../codec.ts'
import type { Fact } from './facts.ts'
import { constant } from './linear.ts'
import { subgraphFacts } from './subgraphs.ts'

it('what a turn of a loop passes from one state to the next is known no better than where it comes from', async () => {
  const body = make('Graph', { node: [], input: [], output: [] })
  const node = make('Node', { opType: 'Loop', attribute: [make('Attribute', { name: 'body', g: body })] })
  const fact = (...dims: number[]): Fact => ({ type: 1, dims: dims.map((dim) => constant(dim)) })
  // The first state grows; the second and third are what those before them were in the turn before.
  const look = async (_: unknown, [, , first, second]: readonly Fact[]): Promise<readonly Fact[]> => {
    const grown = first?.dims?.map((dim, i) => (i === 0 ? dim && constant(dim.c + 1) : dim))
    return [{}, { type: 1, dims: grown }, first as Fact, second as Fact]
  }
  const states = await subgraphFacts(node, [{}, {}, fact(1, 4), fact(1, 4), fact(1, 4)], look)
  for (const { dims } of states!) expect(dims).toEqual([undefined, constant(4)])
  expect(states).toHaveLength(3)
})

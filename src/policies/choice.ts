/** Reading a choice of policy: a name, or wrappers around one, as in `pyramidkv(adakv(h2o))`. */
import type { BasePolicyName, PolicyName, WrapperName } from '../cache/contract.ts'
import { checkChoice, describe } from '../tensor/check.ts'
import { invalidArgument } from '../tensor/error.ts'
import { basePolicies, type PolicyEntry, wrappedByDefault, wrappers } from './table.ts'

const baseNames = Object.keys(basePolicies) as BasePolicyName[]
const wrapperNames = Object.keys(wrappers) as WrapperName[]

/** Every name that stands by itself. */
export const policyNames: readonly PolicyName[] = [...baseNames, ...wrapperNames]

/** A policy as chosen. */
export interface ChosenPolicy {
  readonly name: BasePolicyName
  readonly entry: PolicyEntry
  /** Heads of a layer share their budget. */
  readonly sharesHeads: boolean
  readonly isPyramid: boolean
}

/**
 * What a policy's name stands for, with the wrappers around it, as in `adakv(snapkv)`.
 * @throws KvasirError `invalid-argument` naming the nearest policy; a wrapper twice, or around `full`
 */
export function readPolicy(choice: unknown): ChosenPolicy {
  const around = new Set<WrapperName>()
  let rest = choice
  for (;;) {
    const match = typeof rest === 'string' ? /^([a-z0-9-]+)\((.*)\)$/.exec(rest) : null
    const name = match ? match[1] : rest
    checkChoice('cache', 'policy', name, match ? wrapperNames : policyNames)
    if (!isWrapper(name)) return chosen(name as BasePolicyName, around, choice)
    if (around.has(name)) throw invalidArgument('cache', `expected ${name} once in a policy, got ${describe(choice)}`)
    around.add(name)
    rest = match ? match[2] : wrappedByDefault
  }
}

function isWrapper(name: string): name is WrapperName {
  return wrapperNames.includes(name as WrapperName)
}

function chosen(name: BasePolicyName, around: ReadonlySet<WrapperName>, choice: unknown): ChosenPolicy {
  const entry: PolicyEntry = basePolicies[name]
  if (around.size > 0 && !entry.retention) {
    throw invalidArgument('cache', `expected a policy that has a budget to share, got ${describe(choice)}`)
  }
  return { name, entry, sharesHeads: around.has('adakv'), isPyramid: around.has('pyramidkv') }
}

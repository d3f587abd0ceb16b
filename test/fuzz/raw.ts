/** Calls of the addon with lists of values that nobody has checked. */
import { createRequire } from 'node:module'
import {
  attendCall,
  keepCall,
  retainCall,
  rotateCall,
  seekCall,
  selectCall,
  storeCall,
  turnCall,
  weighCall,
} from '../../src/kernels/calls.ts'
import { pickFrom } from '../../src/kernels/cases/random.ts'
import { cases } from '../../src/kernels/cases.ts'
import { guard, type Homes } from './homes.ts'
import { junk } from './spoil.ts'

type Random = () => number
type Callable = (...values: unknown[]) => unknown

const addon = createRequire(import.meta.url)(process.env.KVASIR_ADDON ?? '') as Record<string, Callable>
const sets = addon.instructionSets?.() as string[]
const engines = new Map<string, unknown>()
const strangers = [guard.stranger()]

function engineOf(random: Random): unknown {
  const [set, threads] = [pickFrom(random, sets), pickFrom(random, [1, 2, 5])]
  const key = `${set} ${threads}`
  if (!engines.has(key)) engines.set(key, addon.open?.(threads, set))
  return engines.get(key)
}

/** Good arguments of each function, from the cases. */
function goodCall(name: string, random: Random, homes: Homes): unknown[] {
  const seed = Math.floor(random() * 2 ** 32)
  const make = {
    attend: () => attendCall(homes.move(cases.attend.create(cases.attend.draw(random), seed))),
    attendAsync: () => attendCall(homes.move(cases.attend.create(cases.attend.draw(random), seed))),
    weigh: () => weighCall(homes.move(cases.weigh.create(cases.weigh.draw(random), seed))),
    store: () => storeCall(homes.move(cases.store.create(cases.store.draw(random), seed))),
    turn: () => turnCall(homes.move(cases.turn.create(cases.turn.draw(random), seed))),
    rotate: () => rotateCall(homes.move(cases.rotate.create(cases.rotate.draw(random), seed))),
    select: () => selectCall(homes.move(cases.select.create(cases.select.draw(random), seed))),
    seek: () => seekCall(homes.move(cases.seek.create(cases.seek.draw(random), seed))),
    retain: () => {
      const [first] = homes.move(cases.retain.create(cases.retain.draw(random), seed)).calls
      return first ? retainCall(first) : []
    },
    keep: () => {
      const [first] = homes.move(cases.keep.create(cases.keep.draw(random), seed)).calls
      return first ? keepCall(first) : []
    },
    read: () => [homes.move(new Float32Array(Math.floor(random() * 300)))],
    multiplyAdd: () => [pickFrom(random, [0, 1, 100])],
  } as const satisfies Record<string, () => unknown[]>
  return make[name as keyof typeof make]()
}

const withEngine = [
  'attend',
  'attend',
  'attendAsync',
  'weigh',
  'store',
  'turn',
  'rotate',
  'select',
  'seek',
  'retain',
  'keep',
  'read',
  'multiplyAdd',
]

/** A call that may be anything. Refusals are errors of the addon's own; anything else is a finding. */
export async function rawCall(random: Random, homes: Homes): Promise<void> {
  const name = pickFrom(random, [...withEngine, 'open', 'prepare', 'instructionSets'])
  const values: unknown[] = withEngine.includes(name)
    ? [engineOf(random), ...goodCall(name, random, homes)]
    : [pickFrom(random, [1, 2, 0, 257]), pickFrom(random, [...sets, 'avx', ''])]
  const changes = Math.floor(random() * 4)
  for (let i = 0; i < changes; i++) change(values, random, name)
  try {
    await addon[name]?.(...values)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'KVASIR_NATIVE') throw error
  }
}

function change(values: unknown[], random: Random, name: string): void {
  const at = Math.floor(random() * values.length)
  const kind = random()
  // A billion rounds of multiply-adds are a valid wish.
  if (name === 'multiplyAdd' && at > 0) return
  if (kind < 0.5) values[at] = junk(random, strangers)
  else if (kind < 0.6) values.splice(at, 1)
  else if (kind < 0.7) values.splice(at, 0, junk(random, strangers))
  else if (kind < 0.8) values.length = at
  else if (kind < 0.85)
    values.push(...Array.from({ length: Math.floor(random() * 300) }, () => junk(random, strangers)))
  else {
    // Arrays of one type in each other's places: aliases, outputs over inputs.
    const other = Math.floor(random() * values.length)
    if (random() < 0.5) values[at] = values[other]
    else [values[at], values[other]] = [values[other], values[at]]
  }
}

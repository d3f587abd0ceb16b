/** Which backend does what, found out by running the cases: the table of docs/kernels.md. */

import { backendNames, backends } from '../backends.ts'
import { attendCase } from '../cases/attend.ts'
import { attendForms } from '../cases/attend-forms.ts'
import type { AttendShape } from '../cases/attend-inputs.ts'
import { findDifferences, judge, type OpCase } from '../cases/case.ts'
import { keepCase } from '../cases/keep.ts'
import { retainCase } from '../cases/retain.ts'
import { rotateCase } from '../cases/rotate.ts'
import { seekCase } from '../cases/seek.ts'
import { selectCase } from '../cases/select.ts'
import { storeCase } from '../cases/store.ts'
import { turnCase } from '../cases/turn.ts'
import { weighCase } from '../cases/weigh.ts'
import type { Kernels, StorageType } from '../contract.ts'
import { storageTypes } from '../storage.ts'

const sizes = { name: '', segments: [40, 21], numHeads: 6, numKvHeads: 2, headDim: 20 } as const
const small = (form: Partial<AttendShape>, storage: StorageType): AttendShape[] =>
  [1, 11].map((numTokens) => ({ ...sizes, numTokens, ...form, storage }))

/** What has to hold for a cell: the cases of a row in each storage type that it can be asked for. */
interface Row {
  readonly name: string
  readonly checks: Readonly<Record<string, (kernels: Kernels) => boolean>>
}

/** True when all shapes come out as the reference has them. A refusal is a no. */
function passes<Shape extends { readonly name: string }, Args>(op: OpCase<Shape, Args>, shapes: readonly Shape[]) {
  const verdicts = shapes.map((shape) => judge(op, shape, 1))
  return (kernels: Kernels): boolean => {
    try {
      return verdicts.every((verdict) => {
        return findDifferences(verdict, op.run(kernels, structuredClone(verdict.inputs))).length === 0
      })
    } catch {
      return false
    }
  }
}

function inEachStorage(name: string, check: (storage: StorageType) => (kernels: Kernels) => boolean): Row {
  return { name, checks: Object.fromEntries(storageTypes.map((storage) => [storage, check(storage)])) }
}

function rows(): Row[] {
  const forms = Object.entries(attendForms).filter(([, form]) => Object.keys(form).some((key) => key !== 'storage'))
  const stored = storeCase.shapes.filter(({ rotation }) => !rotation)
  const rotated = storeCase.shapes.filter(({ rotation }) => rotation)
  const named = (name: string) => rotateCase.shapes.filter((shape) => shape.name.startsWith(name))
  return [
    inEachStorage('`attend`', (storage) => passes(attendCase, small({}, storage))),
    ...forms.map(([name, form]) => inEachStorage(`... ${name}`, (storage) => passes(attendCase, small(form, storage)))),
    inEachStorage('`weigh`', (storage) => passes(weighCase, small({ visibility: 'causal' }, storage))),
    ...[
      { name: '`store`', shapes: stored },
      { name: '... rotated', shapes: rotated },
    ].map(({ name, shapes }) =>
      inEachStorage(name, (storage) =>
        passes(
          storeCase,
          shapes.filter((shape) => shape.storage === storage),
        ),
      ),
    ),
    inEachStorage('`turn`', (storage) =>
      passes(
        turnCase,
        turnCase.shapes.filter((shape) => shape.storage === storage),
      ),
    ),
    { name: '`rotate`', checks: { yes: passes(rotateCase, named('half')) } },
    { name: '... interleaved', checks: { yes: passes(rotateCase, named('interleaved')) } },
    { name: '`retain`', checks: { yes: passes(retainCase, retainCase.shapes) } },
    { name: '`keep`', checks: { yes: passes(keepCase, keepCase.shapes) } },
    { name: '`select`', checks: { yes: passes(selectCase, selectCase.shapes) } },
    inEachStorage('`seek`', (storage) =>
      passes(
        seekCase,
        seekCase.shapes.filter((shape) => shape.storage === storage && shape.numRows <= 200),
      ),
    ),
  ]
}

/** Backends that can't be used here, with the reason: without them the table can't be made. */
export function missingBackends(): string[] {
  return backendNames.flatMap((name) => {
    const probed = backends[name].probe()
    return probed === true ? [] : [`${name}: ${probed}`]
  })
}

function renderSupport(): string {
  const opened = backendNames.map((name) => backends[name].open(2))
  const lines = rows().map(({ name, checks }) => {
    const cells = opened.map((kernels) => {
      const good = Object.keys(checks).filter((key) => checks[key]?.(kernels))
      if (good.length === storageTypes.length) return 'all'
      return good.join(', ') || 'no'
    })
    return `| ${[name, ...cells].join(' | ')} |`
  })
  const head = ['what', ...backendNames.map((name) => `\`${name}\``)]
  return [`| ${head.join(' | ')} |`, `|${head.map(() => '---').join('|')}|`, ...lines].join('\n')
}

const marks = ['<!-- support: made by tools/render-kernels.mjs -->', '<!-- end of support -->'] as const

/** `document` with the table between its marks. */
export function withSupport(document: string): string {
  const [begin, end] = marks.map((mark) => document.indexOf(mark)) as [number, number]
  if (begin < 0 || end < begin) throw new Error(`expected "${marks[0]}" and "${marks[1]}"`)
  return `${document.slice(0, begin + marks[0].length)}\n\n${renderSupport()}\n\n${document.slice(end)}`
}

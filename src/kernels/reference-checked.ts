/** The reference as a backend that anybody may ask for: its arguments are checked as those of the others are. */
import { checkAttend, checkWeigh } from './check-attend.ts'
import { checkKeep, checkRetain, checkRotate, checkSelect, checkStore, checkTurn } from './check-rows.ts'
import { checkSeek } from './check-seek.ts'
import type { Kernels } from './contract.ts'
import { openReference } from './reference.ts'

export function openCheckedReference(): Kernels {
  const reference = openReference()
  const attend = checked(checkAttend, reference.attend)
  return {
    ...reference,
    attend,
    attendAsync: async (args) => attend(args),
    weigh: checked(checkWeigh, reference.weigh),
    store: checked(checkStore, reference.store),
    retain: checked(checkRetain, reference.retain),
    keep: checked(checkKeep, reference.keep),
    select: checked(checkSelect, reference.select),
    seek: checked(checkSeek, reference.seek),
    turn: checked(checkTurn, reference.turn),
    rotate: checked(checkRotate, reference.rotate),
  }
}

function checked<A>(check: (args: A) => void, run: (args: A) => void): (args: A) => void {
  return (args) => {
    check(args)
    run(args)
  }
}

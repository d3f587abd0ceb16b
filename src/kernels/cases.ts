/**
 * The cases that every backend is held to: one object an op, which says what its dimensions and options are, makes
 * inputs from a seed, knows the right results and how far off they may be, and counts operations and bytes.
 */
import { attendCase } from './cases/attend.ts'
import { keepCase } from './cases/keep.ts'
import { retainCase } from './cases/retain.ts'
import { rotateCase } from './cases/rotate.ts'
import { seekCase } from './cases/seek.ts'
import { selectCase } from './cases/select.ts'
import { storeCase } from './cases/store.ts'
import { turnCase } from './cases/turn.ts'
import { weighCase } from './cases/weigh.ts'

export { type AttendShape, createAttendCase } from './cases/attend-inputs.ts'
export { createRandom, normal } from './cases/random.ts'

/** Of each op of `Kernels`. */
export const cases = {
  attend: attendCase,
  weigh: weighCase,
  store: storeCase,
  turn: turnCase,
  rotate: rotateCase,
  retain: retainCase,
  keep: keepCase,
  select: selectCase,
  seek: seekCase,
} as const

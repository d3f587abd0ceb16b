/** Plain RoPE: pair i turns by theta^(-i/R) radians a position. */
import type { RotaryEntry } from './contract.ts'
import { fixedTable, plainFrequencies, rotaryPairs } from './frequencies.ts'

export const plainRope: RotaryEntry = (config) => fixedTable(plainFrequencies(config.theta, rotaryPairs(config)))

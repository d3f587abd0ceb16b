/** What attention can be asked for, apart from sizes. */
import type { AttendShape } from './attend-inputs.ts'

/** Every form of attention. */
export const attendForms: Readonly<Record<string, Partial<AttendShape>>> = {
  bf16: { storage: 'bf16' },
  'bf16 queries': { storage: 'bf16', queryStorage: 'bf16', headDim: 111, valueDim: 59 },
  'f16 queries': { storage: 'f16', queryStorage: 'f16', headDim: 40, valueDim: 13 },
  'causal by position': { positions: 'consecutive', right: 0 },
  'window by position': { positions: 'consecutive', left: 19, right: 0, storage: 'f16' },
  'window and sinks': { positions: 'consecutive', left: 11, right: 0, sinks: 3 },
  'window to both sides': { positions: 'consecutive', left: 7, right: 4 },
  'window, listed positions': { positions: 'listed', left: 23, right: 0, sinks: 2 },
  'window of one': { positions: 'consecutive', left: 0, right: 0 },
  'soft cap': { softcap: 2.5, bias: 'random' },
  'soft cap, huge logits': { softcap: 30, queryScale: 300 },
  alibi: { positions: 'consecutive', right: 0, alibi: true },
  'alibi, listed positions': { positions: 'listed', alibi: true, storage: 'f16' },
  'learned sinks': { sinkLogits: 'all' },
  'learned sinks, all hidden': { sinkLogits: 'some', bias: 'all-hidden' },
  'boolean mask': { mask: 'allow' },
  'additive mask': { mask: 'add', visibility: 'causal' },
  'mask by head': { mask: 'hide-by-head', storage: 'f16' },
  'everything at once': {
    ...{ positions: 'consecutive', left: 40, right: 0, sinks: 4, softcap: 8, alibi: true, sinkLogits: 'all' },
    ...{ mask: 'add', bias: 'some-hidden', rotation: 'half', queryStorage: 'bf16', storage: 'bf16' },
  },
  rotated: { rotation: 'half' },
  'rotated, interleaved': { rotation: 'interleaved', headDim: 37 },
  'pages of 16': { pageSize: 16, layout: 'shared', storage: 'f16' },
  'pages of 5, shared table': { pageSize: 5, layout: 'token-major', positions: 'consecutive', right: 0 },
  'page of one': { pageSize: 1, layout: 'shared', bias: 'some-hidden', visibility: 'random' },
  'pool, gathered': { layout: 'shared', gathers: true },
}

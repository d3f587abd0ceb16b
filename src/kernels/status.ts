import { invalidArgument, KvasirError } from '../tensor/error.ts'

/** Turns the Status of `retain` (native/include/kvasir/kernels.h) into nothing or an error. */
export function checkStatus(status: number): void {
  if (status === 1) throw invalidArgument('kernels', 'expected scores without NaN')
  if (status !== 0) throw new KvasirError('internal', 'kernels', `the kept set is corrupt (status ${status})`)
}

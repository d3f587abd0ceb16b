/** A promise that must settle in time. */

/**
 * @throws Error when `promise` has not settled after `milliseconds`. A thread that was busy meanwhile may find the
 * timer due before it has looked at what arrived: it looks once more before it gives up.
 */
export async function withDeadline<T>(promise: Promise<T>, milliseconds: number): Promise<T> {
  let timer: NodeJS.Timeout | undefined
  const late = new Promise<never>((_, reject) => {
    const giveUp = (): void => reject(new Error(`no answer within ${Math.round(milliseconds)} ms`))
    timer = setTimeout(() => setImmediate(() => setImmediate(giveUp)), milliseconds)
  })
  promise.catch(() => undefined) // settled too late, it must not end the process
  return await Promise.race([promise, late]).finally(() => clearTimeout(timer))
}

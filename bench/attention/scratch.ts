/** How much memory one call takes beyond what the process held before it. */
import { existsSync, readFileSync, writeFileSync } from 'node:fs'

const clearRefs = '/proc/self/clear_refs'
const status = '/proc/self/status'

/**
 * Peak of the resident set during `run`, less what was resident before. On Linux the kernel's own peak, set back before
 * the call; elsewhere the peak of the whole life of the process, which a call does not raise that stays below an
 * earlier one.
 */
export async function scratchBytes(run: () => Promise<void>): Promise<number> {
  globalThis.gc?.()
  const isLinux = existsSync(clearRefs) && existsSync(status)
  if (isLinux) writeFileSync(clearRefs, '5')
  const before = isLinux ? readStatus('VmRSS') : process.memoryUsage.rss()
  await run()
  const peak = isLinux ? readStatus('VmHWM') : process.resourceUsage().maxRSS * 1024
  return Math.max(0, peak - before)
}

function readStatus(name: string): number {
  return Number(readFileSync(status, 'utf8').match(new RegExp(`^${name}:\\s+(\\d+) kB`, 'm'))?.[1]) * 1024
}

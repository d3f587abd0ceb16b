import { existsSync, readFileSync } from 'node:fs'
import { expect, test } from 'vitest'
import { openNative, probeNative } from './native.ts'

const MEBIBYTE = 2 ** 20

/** Bytes of this process's memory for which huge pages were asked (flag `hg`). */
function bytesWithHugePages(): number {
  let size = 0
  let total = 0
  for (const line of readFileSync('/proc/self/smaps', 'utf8').split('\n')) {
    if (line.startsWith('Size:')) size = Number.parseInt(line.slice(5), 10) * 1024
    if (line.startsWith('VmFlags:') && line.split(' ').includes('hg')) total += size
  }
  return total
}

// A kernel without huge pages has no such file.
const hasHugePages = existsSync('/sys/kernel/mm/transparent_hugepage/enabled')

test.runIf(hasHugePages && probeNative() === true)('memory of many megabytes asks for huge pages', () => {
  const kernels = openNative(1)
  const before = bytesWithHugePages()
  kernels.alloc(MEBIBYTE)
  expect(bytesWithHugePages() - before).toBe(0)
  kernels.alloc(64 * MEBIBYTE)
  expect(bytesWithHugePages() - before).toBeGreaterThan(63 * MEBIBYTE)
})

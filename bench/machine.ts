/** What a measurement was made on. */
import { existsSync, readFileSync } from 'node:fs'
import { arch, cpus, totalmem } from 'node:os'

export interface Machine {
  readonly processor: string
  readonly cores: number
  readonly memoryGiB: number
  readonly architecture: string
  /** Instruction sets that decide how fast attention can be, as Linux names them; empty elsewhere. */
  readonly flags: readonly string[]
}

const x86 = ['avx2', 'fma', 'f16c', 'avx_vnni', 'avx512f', 'avx512_bf16', 'avx512_fp16', 'avx512_vnni', 'amx_bf16']
const arm = ['asimd', 'asimdhp', 'asimddp', 'bf16', 'i8mm', 'sve']

export function describeMachine(cpuInfoFile = '/proc/cpuinfo'): Machine {
  const all = cpus()
  return {
    processor: all[0]?.model.trim() || 'unknown',
    cores: all.length,
    memoryGiB: Math.round(totalmem() / 2 ** 30),
    architecture: arch(),
    flags: existsSync(cpuInfoFile) ? readFlags(readFileSync(cpuInfoFile, 'utf8')) : [],
  }
}

function readFlags(text: string): string[] {
  const found = new Set(text.match(/^(?:flags|Features)\s*:(.*)$/m)?.[1]?.split(/\s+/))
  return [...x86, ...arm].filter((flag) => found.has(flag))
}

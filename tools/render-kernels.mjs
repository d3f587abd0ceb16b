/** Writes the table of docs/kernels.md: runs the cases on every backend. `node tools/render-kernels.mjs` */
import { readFileSync, writeFileSync } from 'node:fs'
import { tsImport } from 'tsx/esm/api'

const { missingBackends, withSupport } = await tsImport('../src/kernels/testing/support.ts', import.meta.url)
const file = new URL('../docs/kernels.md', import.meta.url)
const missing = missingBackends()
if (missing.length > 0) throw new Error(`expected all backends to work here, but ${missing.join('; ')}`)
writeFileSync(file, withSupport(readFileSync(file, 'utf8')))

/** docs/kernels.md says what the backends do. */
import { readFileSync } from 'node:fs'
import { expect, test } from 'vitest'
import { missingBackends, withSupport } from './testing/support.ts'

test('the table of docs/kernels.md is what the cases show (node tools/render-kernels.mjs writes it)', {
  timeout: 600_000,
}, (context) => {
  const missing = missingBackends()
  if (missing.length > 0) context.skip(missing.join('; '))
  const document = readFileSync(new URL('../../docs/kernels.md', import.meta.url), 'utf8')
  expect(document).toBe(withSupport(document))
})

import { defineConfig } from 'vitest/config'

export default defineConfig({
  test: {
    include: ['{src,test,eval,bench,training,tools}/**/*.test.{ts,mjs}'],
    // Native addons and ONNX Runtime hold threads and memory of their own: a process a file keeps them apart.
    pool: 'forks',
    testTimeout: 120_000,
    hookTimeout: 120_000,
  },
})

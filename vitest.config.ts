import { defineConfig } from 'vitest/config'

export default defineConfig({
  test: {
    include: ['{src,test,eval,bench,training,tools}/**/*.test.{ts,mjs}'],
    // Native addons and ONNX Runtime hold threads and memory of their own: a process a file keeps them apart.
    pool: 'forks',
    // Left to itself vitest keeps one processor free, which is half of a machine of two.
    maxWorkers: '100%',
    testTimeout: 120_000,
    hookTimeout: 120_000,
  },
})

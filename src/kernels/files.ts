/** Where the built kernels lie: `build/` in the package root, whether this module runs from src/ or from dist/src/. */
import { existsSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

export function builtFile(...parts: string[]): string {
  return join(packageFolder(), 'build', ...parts)
}

/** What compiles the native addon: a checkout has a script, which a package that was installed has not. */
export function howToBuild(folder = packageFolder()): string {
  if (existsSync(join(folder, 'tools/build-native.mjs'))) return 'npm run native'
  // Not `rebuild`, which would remove the WebAssembly kernels.
  return `npx node-gyp configure build -C ${JSON.stringify(folder)}`
}

function packageFolder(): string {
  let folder = dirname(fileURLToPath(import.meta.url))
  while (!existsSync(join(folder, 'package.json')) && dirname(folder) !== folder) folder = dirname(folder)
  return folder
}

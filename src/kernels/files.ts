/**
 * Where the built kernels lie: `build/` in the package root, whether this module runs from src/ or from dist/src/. Of
 * Node.js only, but pages load this too, so its modules are asked for when they are needed.
 */
import { nodeModule } from './host.ts'

const files = () => nodeModule('node:fs') as typeof import('node:fs')
const paths = () => nodeModule('node:path') as typeof import('node:path')
const urls = () => nodeModule('node:url') as typeof import('node:url')

export function builtFile(...parts: string[]): string {
  return paths().join(packageFolder(), 'build', ...parts)
}

export function isFile(path: string): boolean {
  return files().existsSync(path)
}

/** What compiles the native addon: a checkout has a script, which a package that was installed has not. */
export function howToBuild(folder = packageFolder()): string {
  if (isFile(paths().join(folder, 'tools/build-native.mjs'))) return 'npm run native'
  // Not `rebuild`, which would remove the WebAssembly kernels.
  return `npx node-gyp configure build -C ${JSON.stringify(folder)}`
}

function packageFolder(): string {
  const { dirname, join } = paths()
  let folder = dirname(urls().fileURLToPath(import.meta.url))
  while (!isFile(join(folder, 'package.json')) && dirname(folder) !== folder) folder = dirname(folder)
  return folder
}

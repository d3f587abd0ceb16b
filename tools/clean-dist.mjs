/** Removes what an earlier `npm run build` made, of which files may since have gone: `npm pack` takes all of dist/. */
import { rmSync } from 'node:fs'

rmSync(new URL('../dist', import.meta.url), { recursive: true, force: true })

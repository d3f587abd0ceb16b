/** TypeScript that stands in Markdown files of this repository. */
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'

export const root = fileURLToPath(new URL('..', import.meta.url))

export interface Snippet {
  /** "README.md:34" */
  readonly where: string
  readonly code: string
}

/** The README, the other documents of the root, and docs/, as paths from the root. */
export function listDocuments(): string[] {
  const files = readdirSync(root).filter((name) => name.endsWith('.md'))
  const docs = readdirSync(join(root, 'docs'), { recursive: true, encoding: 'utf8' }).filter((name) =>
    name.endsWith('.md'),
  )
  return [...files, ...docs.map((name) => join('docs', name)), 'bench/README.md']
}

/** Code blocks marked `ts` in all documents. */
export function readSnippets(): Snippet[] {
  return listDocuments().flatMap((name) => extractSnippets(name, readFileSync(join(root, name), 'utf8')))
}

export function extractSnippets(file: string, text: string): Snippet[] {
  return [...text.matchAll(/^```ts\n([\s\S]*?)^```$/gm)].map((match) => ({
    where: `${file}:${text.slice(0, match.index).split('\n').length + 1}`,
    code: match[1] ?? '',
  }))
}

/** The links of a Markdown text that point into the repository. */
export function extractLinks(text: string): string[] {
  return [...text.matchAll(/\]\((?!\w+:|#)([^)#\s]+)[^)]*\)/g)].map((match) => match[1] ?? '')
}

/**
 * Tells whether something that was built is out of date. A build has a key, a hash of everything it depends on, which
 * is written to a stamp file together with the paths of what came out; it is fresh while the key is the same and the
 * outputs are there. Times of files play no part, since a fresh clone or a changed branch sets them at random.
 */
import { createHash } from 'node:crypto'
import { existsSync, mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import { dirname, join, relative, sep } from 'node:path'

/**
 * Hashes files and folders by path and content, in the order of their names.
 * @param {string} root paths count from here
 * @param {readonly string[]} paths files or folders; those that do not exist count as absent
 * @param {readonly string[]} extra versions of tools and whatever else the result depends on
 */
export function contentKey(root, paths, extra = []) {
  const hash = createHash('sha256')
  for (const file of paths.flatMap((path) => listFiles(join(root, path)))) {
    hash.update(`${relative(root, file).split(sep).join('/')}\0`)
    hash.update(createHash('sha256').update(readFileSync(file)).digest())
  }
  for (const text of extra) hash.update(`\0${text}`)
  return hash.digest('hex')
}

/** Files below `path` in the order of their names; `path` itself when it is a file. */
export function listFiles(path) {
  if (!existsSync(path)) return []
  if (!statSync(path).isDirectory()) return [path]
  return readdirSync(path)
    .sort()
    .flatMap((name) => listFiles(join(path, name)))
}

/**
 * Stamps of several builds in one file.
 * @param {string} file for example build/stamp.json
 */
export function openStamps(file) {
  const folder = dirname(file)
  const read = () => {
    try {
      return JSON.parse(readFileSync(file, 'utf8'))
    } catch {
      return {} // absent or cut off: everything is stale
    }
  }
  return {
    /** Whether the last build of `name` had this key and what it made is still there. */
    isFresh(name, key) {
      const stamp = read()[name]
      return stamp?.key === key && stamp.outputs.every((output) => existsSync(join(folder, output)))
    },
    write(name, key, outputs) {
      mkdirSync(folder, { recursive: true })
      const stamp = { key, outputs: outputs.map((output) => relative(folder, output)) }
      writeFileSync(file, `${JSON.stringify({ ...read(), [name]: stamp }, undefined, 2)}\n`)
    },
  }
}

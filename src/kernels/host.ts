/**
 * What this code runs in: Node.js, or a page and its workers. Nothing of Node is imported here or by what pages load;
 * where there is one, `process` hands out its modules.
 */

type NodeModuleName = 'node:fs' | 'node:module' | 'node:os' | 'node:path' | 'node:url' | 'node:worker_threads'

/** `node:*` where this is Node.js. Its type is the caller's to say: declarations that name it would ask for @types/node. */
export function nodeModule(name: NodeModuleName): unknown {
  return globalThis.process?.getBuiltinModule?.(name)
}

/** A variable of the environment; undefined where there is none, or an empty one. */
export function environmentVariable(name: string): string | undefined {
  return globalThis.process?.env?.[name] || undefined
}

export function numCores(): number {
  const os = nodeModule('node:os') as typeof import('node:os') | undefined
  return os?.availableParallelism() ?? globalThis.navigator?.hardwareConcurrency ?? 1
}

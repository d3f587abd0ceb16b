/**
 * The version of what TypeScript and the compiled kernels pass to each other. What was compiled before it changed would
 * read calls wrongly, so it is refused when it is loaded.
 */

/** As native/bindings/interface.h has it, which says what it covers. */
export const interfaceVersion = 3

/**
 * Why compiled kernels can't be used here, or nothing when they fit.
 * @param came their version; undefined: from before there were versions
 */
export function whyOtherInterface(what: string, came: number | undefined, remedy: string): string | undefined {
  if (came === interfaceVersion) return undefined
  const versions = `expected version ${interfaceVersion} of their interface, got ${came ?? 'none'}`
  return `${what} were compiled from other sources than these (${versions}; ${remedy})`
}

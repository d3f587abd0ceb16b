/** Whether one request shares its prefix, and with whom. */
import { checkSalt } from '../cache/prefix/open-prefixes.ts'
import { checkKeys, describe } from '../tensor/check.ts'
import { invalidArgument } from '../tensor/error.ts'
import type { PrefixChoice } from './contract.ts'

/** @throws KvasirError `invalid-argument` */
export function checkPrefixChoice(choice: PrefixChoice | undefined): PrefixChoice | undefined {
  if (choice === undefined || choice === false) return choice
  if (typeof choice !== 'object' || choice === null) {
    throw invalidArgument('runtime', `expected false or a salt for prefixCache, got ${describe(choice)}`)
  }
  checkKeys('runtime', 'prefixCache', choice, ['salt'])
  checkSalt(choice.salt)
  return choice
}

/** The checks of the options of a cache, by themselves and together. */
import type { CacheOptions } from '../cache/contract.ts'
import { storageTypes } from '../kernels/index.ts'
import { checkChoice, checkFinite, checkInteger, checkKeys } from '../tensor/check.ts'
import { invalidArgument } from '../tensor/error.ts'
import { maxWindow } from './budget.ts'
import { readPolicy } from './choice.ts'
import { checkImportanceSource } from './importance.ts'
import { checkRecall } from './recall.ts'

/** Each step looks through all of them; who wants more in f16 wants f16. */
const maxResidual = 65536

const optionNames = [
  ...['policy', 'window', 'sinks', 'recent', 'kvDtype', 'kvDtypeK', 'kvDtypeV', 'residual'],
  ...['kvBudget', 'storage', 'pageSize', 'pool', 'positions'],
  ...['importance', 'interval', 'leastWindow', 'keepMass', 'seed', 'evictionLog', 'recall', 'recallBytes'],
  'recallStore',
]

/**
 * Whether options of a cache make sense, whatever the model: what `createKvCache` looks at first.
 * @throws KvasirError `invalid-argument`, naming the option
 */
export function checkCacheOptions(options: CacheOptions): void {
  checkKeys('cache', 'a cache', options, optionNames)
  const { policy, window, sinks = 0, recent = 0, kvBudget } = options
  const chosen = readPolicy(policy)
  const { entry } = chosen
  checkRecall(options, chosen)
  checkStorage(options)
  checkInteger('cache', 'sinks', sinks, 0, maxWindow)
  checkInteger('cache', 'recent', recent, 0, maxWindow)
  if (window !== undefined) checkInteger('cache', 'window', window, 1, maxWindow)
  else if (entry.needsWindow && kvBudget === undefined) {
    throw invalidArgument('cache', `policy "${policy}" needs a window, or a kvBudget in bytes`)
  }
  if (!entry.needsWindow) checkUnbounded(options)
  else if (window !== undefined && sinks + recent > window) {
    throw invalidArgument('cache', `expected sinks + recent within the window of ${window}, got ${sinks} + ${recent}`)
  }
  checkRest(options)
}

/** What a cache that keeps everything has no use for. */
function checkUnbounded(options: CacheOptions): void {
  const { policy, window, sinks, recent, kvBudget, positions, leastWindow } = options
  if (sinks || recent) throw invalidArgument('cache', `sinks and recent mean nothing to policy "${policy}"`)
  // Where nothing leaves, a rank is a position; with a window, ranks among those that each query sees would differ.
  const rank = positions === 'rank' && window !== undefined ? positions : undefined
  for (const [name, value] of Object.entries({ kvBudget, positions: rank, leastWindow })) {
    if (value !== undefined) throw invalidArgument('cache', `${name} means nothing to policy "${policy}": it keeps all`)
  }
}

/** What a pool is told as well. */
export function checkStorage(options: Partial<CacheOptions>): void {
  const { kvDtype, kvDtypeK, kvDtypeV, residual, pageSize, kvBudget, storage } = options
  for (const [name, type] of Object.entries({ kvDtype, kvDtypeK, kvDtypeV })) {
    if (type !== undefined) checkChoice('cache', name, type, storageTypes)
  }
  if (residual !== undefined) checkInteger('cache', 'residual', residual, 0, maxResidual)
  if (storage !== undefined) checkChoice('cache', 'storage', storage, ['contiguous', 'paged'])
  if (pageSize !== undefined) checkInteger('cache', 'pageSize', pageSize, 1, 65536)
  if (kvBudget !== undefined) checkInteger('cache', 'kvBudget', kvBudget, 1)
}

function checkRest(options: CacheOptions): void {
  const { positions, importance, interval, leastWindow, keepMass, seed, evictionLog, window = maxWindow } = options
  if (positions !== undefined) checkChoice('cache', 'positions', positions, ['original', 'rank'])
  if (importance !== undefined) checkImportanceSource(importance)
  if (interval !== undefined) checkInteger('cache', 'interval', interval, 1, maxWindow)
  if (leastWindow !== undefined) checkInteger('cache', 'leastWindow', leastWindow, 1, window)
  if (seed !== undefined) checkInteger('cache', 'seed', seed, 0, 2 ** 32 - 1)
  if (evictionLog !== undefined) checkInteger('cache', 'evictionLog', evictionLog, 0, 1 << 24)
  if (keepMass !== undefined) {
    checkFinite('cache', 'keepMass', keepMass)
    if (!(keepMass > 0 && keepMass <= 1)) {
      throw invalidArgument('cache', `expected keepMass above 0, up to 1, got ${keepMass}`)
    }
    if (leastWindow === undefined)
      throw invalidArgument('cache', 'keepMass is for windows that change: give leastWindow')
  }
  if (leastWindow !== undefined && readPolicy(options.policy).sharesHeads) {
    throw invalidArgument(
      'cache',
      'expected either adakv or leastWindow, got both: each gives heads budgets of their own',
    )
  }
}

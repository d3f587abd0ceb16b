/** Where models come from and where they are kept: the environment variables of the Hugging Face tools, and our own. */
import { existsSync, readFileSync } from 'node:fs'
import { homedir } from 'node:os'
import { join } from 'node:path'

export interface HubSettings {
  /** `HF_ENDPOINT` */
  readonly endpoint: string
  /** `HF_TOKEN`, else what `hf auth login` left in `HF_TOKEN_PATH` or `HF_HOME/token`. */
  readonly token: string | undefined
  /** `KVASIR_CACHE/hub`, else `HF_HUB_CACHE`, else `HF_HOME/hub`, else `~/.cache/huggingface/hub`. */
  readonly folder: string
  /** `HF_HUB_OFFLINE`: nothing is asked of the network. */
  readonly isOffline: boolean
}

export function hubSettings(env: NodeJS.ProcessEnv = process.env): HubSettings {
  const home = env.HF_HOME || join(env.XDG_CACHE_HOME || join(homedir(), '.cache'), 'huggingface')
  const hub = env.HF_HUB_CACHE || env.HUGGINGFACE_HUB_CACHE || join(home, 'hub')
  return {
    endpoint: (env.HF_ENDPOINT || 'https://huggingface.co').replace(/\/+$/, ''),
    token: env.HF_TOKEN || readToken(env.HF_TOKEN_PATH || join(home, 'token')),
    folder: env.KVASIR_CACHE ? join(env.KVASIR_CACHE, 'hub') : hub,
    isOffline: /^(1|true|yes|on)$/i.test(env.HF_HUB_OFFLINE ?? ''),
  }
}

function readToken(file: string): string | undefined {
  return (existsSync(file) && readFileSync(file, 'utf8').trim()) || undefined
}

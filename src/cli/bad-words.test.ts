/** `--bad-words` and `--bad-words-ids`, with the bundled model. */
import { expect, test } from 'vitest'
import { kvasir } from './testing/with-models.ts'

const line = 'generate --prompt Once --max-tokens 16 --temperature 0 --json'

async function textOf(options = ''): Promise<string> {
  const { code, stdout, stderr } = await kvasir(`${line}${options}`)
  expect(code, stderr).toBe(0)
  return JSON.parse(stdout).text
}

test('words that are named are not written, whatever comes before them', async () => {
  const text = await textOf()
  const words = [...new Set(text.match(/\b[a-z]{3,}\b/g))].slice(0, 2)
  expect(words).toHaveLength(2)
  const other = await textOf(` --bad-words ${words.join(' ')}`)
  for (const word of words) expect(other).not.toMatch(new RegExp(`\\b${word}\\b`))
})

test('sequences of tokens that are named are not written', async () => {
  const { stdout } = await kvasir(`${line} --logprobs 0`)
  const [first, second] = JSON.parse(stdout).choices[0].tokens as [number, number]
  const tokens = async (options: string) => {
    return JSON.parse((await kvasir(`${line} --logprobs 0 ${options}`)).stdout).choices[0].tokens as number[]
  }
  const pair = await tokens(`--bad-words-ids ${first},${second}`)
  expect([pair[0], pair[1] === second]).toEqual([first, false])
  expect(await tokens(`--bad-words-ids ${first} ${second}`)).not.toContain(first)
})

test('what is no word and no token is refused', async () => {
  for (const options of ['--bad-words ', '--bad-words-ids 1,x', '--bad-words-ids 99999']) {
    const { code, stderr } = await kvasir(`generate --prompt Once ${options}`)
    expect([code, stderr]).toEqual([2, expect.stringMatching(/bad-words|badWordsIds/)])
  }
})

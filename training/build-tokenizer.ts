/**
 * Trains the byte-level BPE of the bundled model on generated stories and writes tokenizer.json and
 * tokenizer_config.json in the format of Hugging Face tokenizers.
 *
 *     npx tsx training/build-tokenizer.ts models/kvasir-tiny [vocabulary size, 2048]
 */
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { answerEnd, createStory, questionPrefix } from './stories.ts'
import { byteSymbols, endOfText, mergeAt, splitPieces, toSymbols } from './tokenizer.ts'

const corpusTokens = 400_000
/** Facts are rare in long text, but their words must be whole tokens: this many stories are nothing but facts. */
const factStories = 800

interface Word {
  symbols: readonly string[]
  count: number
}

const [folder, size = '2048'] = process.argv.slice(2)
if (folder === undefined) throw new Error('[training] usage: build-tokenizer.ts FOLDER [VOCABULARY SIZE]')
const words = countPieces(corpus())
const merges = learnMerges(words, Number(size) - byteSymbols.length - 1)
const tokens = [endOfText, ...byteSymbols, ...merges.map(([left, right]) => left + right)]
writeFileSync(join(folder, 'tokenizer.json'), `${JSON.stringify(tokenizerFile(tokens, merges), null, 1)}\n`)
writeFileSync(join(folder, 'tokenizer_config.json'), `${JSON.stringify(tokenizerConfig(), null, 2)}\n`)
const whole = words.filter(({ symbols }) => symbols.length === 1)
console.error(`${tokens.length} tokens; ${whole.length} of ${words.length} distinct words are one token`)

function* corpus(): Generator<string> {
  yield* storyText(1, 24, corpusTokens)
  for (let seed = 2; seed < factStories + 2; seed++) yield* storyText(seed, 24, 1)
}

function* storyText(seed: number, facts: number, targetTokens: number): Generator<string> {
  const story = createStory({ seed, facts, moves: 2, targetTokens, placement: 'start' })
  for (const { text } of story.segments()) yield text
  for (const { prompt, answer } of story.questions) yield questionPrefix + prompt + answer.text + answerEnd
}

function countPieces(texts: Iterable<string>): Word[] {
  const counts = new Map<string, Word>()
  for (const text of texts) {
    for (const piece of splitPieces(text)) {
      const word = counts.get(piece)
      if (word) word.count++
      else counts.set(piece, { symbols: toSymbols(piece), count: 1 })
    }
  }
  return [...counts.values()]
}

/** The classic loop: join the most frequent pair of neighbours, again and again. Ties go to the pair met first. */
function learnMerges(words: Word[], count: number): [string, string][] {
  const merges: [string, string][] = []
  while (merges.length < count) {
    const pairs = new Map<string, number>()
    for (const { symbols, count } of words) {
      for (let at = 1; at < symbols.length; at++) {
        const pair = `${symbols[at - 1]} ${symbols[at]}`
        pairs.set(pair, (pairs.get(pair) ?? 0) + count)
      }
    }
    let best = ''
    for (const [pair, frequency] of pairs) if (frequency > (pairs.get(best) ?? 0)) best = pair
    if (best === '') break
    const [left, right] = best.split(' ') as [string, string]
    for (const word of words) {
      if (word.symbols.includes(left)) word.symbols = mergeAt(word.symbols, left, right)
    }
    merges.push([left, right])
  }
  return merges
}

function tokenizerFile(tokens: readonly string[], merges: readonly [string, string][]): object {
  const byteLevel = { type: 'ByteLevel', add_prefix_space: false, trim_offsets: true, use_regex: true }
  return {
    version: '1.0',
    truncation: null,
    padding: null,
    added_tokens: [
      { id: 0, content: endOfText, single_word: false, lstrip: false, rstrip: false, normalized: false, special: true },
    ],
    normalizer: null,
    pre_tokenizer: { type: 'Sequence', pretokenizers: [{ type: 'Digits', individual_digits: true }, byteLevel] },
    post_processor: null,
    decoder: byteLevel,
    model: {
      type: 'BPE',
      dropout: null,
      unk_token: null,
      continuing_subword_prefix: null,
      end_of_word_suffix: null,
      fuse_unk: false,
      byte_fallback: false,
      ignore_merges: false,
      vocab: Object.fromEntries(tokens.map((token, id) => [token, id])),
      merges,
    },
  }
}

function tokenizerConfig(): object {
  return {
    tokenizer_class: 'PreTrainedTokenizerFast',
    bos_token: endOfText,
    eos_token: endOfText,
    pad_token: endOfText,
    add_bos_token: false,
    clean_up_tokenization_spaces: false,
    model_max_length: 1048576,
    chat_template:
      "{% for message in messages %}{% if message['role'] == 'assistant' %}" +
      "{{ ' ' + message['content'] | trim }}{% else %}{{ '\\n' + message['content'] | trim }}{% endif %}{% endfor %}",
  }
}

/**
 * Facts that a story states and that questions ask about: where a thing is, a password, somebody's number.
 *
 * Only the place of a thing changes. The words of each statement say whether it is the first, second or third about its
 * thing ("put", "Later ... moved", "At last ... again"), because a reader that keeps single tokens cannot count.
 */
import type { Random } from './random.ts'
import {
  colours,
  furniture,
  guardedAdjectives,
  guardedNouns,
  itemAdjectives,
  itemNouns,
  names,
  passwordAdjectives,
  passwordNouns,
} from './vocabulary.ts'

export type FactKind = 'place' | 'holder' | 'password' | 'number'

/** Half-open range of characters. */
export type Span = readonly [begin: number, end: number]

/** Text with the ranges that hold the words a reader must remember. */
export interface MarkedText {
  readonly text: string
  readonly valueSpans: readonly Span[]
}

export interface Question {
  readonly kind: FactKind
  /** "Where is the brass key?" */
  readonly prompt: string
  /** " The brass key is in the blue drawer.", with its leading space, to be appended to the prompt. */
  readonly answer: MarkedText
}

/** One sentence of a story that states a fact, and the question that it answers until a later one of its subject. */
export interface Statement {
  readonly subject: number
  readonly sentence: MarkedText
  readonly question: Question
}

/** Times that a thing can be moved: each version has its own wording. */
const maxMoves = 2

/** A subject is something that facts are about; it is stated `numStatements` times in all. */
export interface Subject {
  readonly numStatements: number
  state(version: number): Statement
}

/** Draws `count` subjects, no two of which have the same name. */
export function createSubjects(random: Random, count: number, moves: number): Subject[] {
  const taken = new Set<string>()
  const fresh = (draw: () => string): string => {
    let drawn = draw()
    while (taken.has(drawn)) drawn = draw()
    taken.add(drawn)
    return drawn
  }
  return Array.from({ length: count }, (_, subject) => {
    const kind = random.next()
    if (kind < 0.2)
      return passwordSubject(
        random,
        subject,
        fresh(() => `${random.pick(guardedAdjectives)} ${random.pick(guardedNouns)}`),
      )
    if (kind < 0.4)
      return numberSubject(
        random,
        subject,
        fresh(() => random.pick(names)),
      )
    const item = fresh(() => `${random.pick(itemAdjectives)} ${random.pick(itemNouns)}`)
    return itemSubject(random, subject, item, random.below(Math.min(moves, maxMoves) + 1))
  })
}

function passwordSubject(random: Random, subject: number, guarded: string): Subject {
  const password = `${random.pick(passwordAdjectives)} ${random.pick(passwordNouns)}`
  const sentence = mark`The password of the ${guarded} is [${password}].`
  const question: Question = {
    kind: 'password',
    prompt: `What is the password of the ${guarded}?`,
    answer: mark` The password of the ${guarded} is [${password}].`,
  }
  return { numStatements: 1, state: () => ({ subject, sentence, question }) }
}

function numberSubject(random: Random, subject: number, name: string): Subject {
  const number = String(random.chance(0.5) ? random.between(100, 999) : random.between(1000, 9999))
  const sentence = mark`${name}'s number is [${number}].`
  const question: Question = {
    kind: 'number',
    prompt: `What is ${name}'s number?`,
    answer: mark` ${name}'s number is [${number}].`,
  }
  return { numStatements: 1, state: () => ({ subject, sentence, question }) }
}

function itemSubject(random: Random, subject: number, item: string, moves: number): Subject {
  const statements = Array.from({ length: moves + 1 }, (_, version) => {
    const [mover, holder] = random.shuffle(names)
    return random.chance(0.3)
      ? handOver(subject, item, version, `${mover}`, `${holder}`)
      : putAway(random, subject, item, version, `${mover}`)
  })
  return { numStatements: statements.length, state: (version) => statements[version] as Statement }
}

function handOver(subject: number, item: string, version: number, giver: string, holder: string): Statement {
  const sentences = [
    mark`${giver} gave the ${item} to [${holder}].`,
    mark`Later ${giver} handed the ${item} to [${holder}].`,
    mark`At last ${giver} passed the ${item} on, to [${holder}].`,
  ]
  const answer = mark` The ${item} is with [${holder}].`
  return { subject, sentence: sentences[version] as MarkedText, question: whereIs(item, 'holder', answer) }
}

function putAway(random: Random, subject: number, item: string, version: number, mover: string): Statement {
  const preposition = random.chance(0.6) ? 'in' : 'on'
  const place = `${random.pick(colours)} ${random.pick(furniture[preposition])}`
  const sentences = [
    mark`${mover} ${random.pick(['put', 'left', 'hid'])} the ${item} ${preposition} the [${place}].`,
    mark`Later ${mover} moved the ${item} ${preposition}to the [${place}].`,
    mark`At last ${mover} moved the ${item} again, ${preposition}to the [${place}].`,
  ]
  const answer = mark` The ${item} is ${preposition} the [${place}].`
  return { subject, sentence: sentences[version] as MarkedText, question: whereIs(item, 'place', answer) }
}

function whereIs(item: string, kind: FactKind, answer: MarkedText): Question {
  return { kind, prompt: `Where is the ${item}?`, answer }
}

/** Template tag: square brackets mark values, and are taken out of the text. */
function mark(parts: TemplateStringsArray, ...inserts: readonly string[]): MarkedText {
  const marked = String.raw({ raw: parts }, ...inserts)
  const valueSpans: Span[] = []
  let text = ''
  for (const [index, piece] of marked.split(/[[\]]/).entries()) {
    if (index % 2 === 1) valueSpans.push([text.length, text.length + piece.length])
    text += piece
  }
  return { text, valueSpans }
}

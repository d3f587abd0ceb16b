/**
 * Sentences that state no fact worth keeping: weather, travel, meals, work and talk.
 *
 * A phrase grammar: `{slot}` stands for one entry of the list of that name, entries may contain slots again. Filler
 * uses names, colours, furniture, digits and even "password", "number", "put" and "gave" in other roles, so a model has
 * to read the sentence to know that it may forget it. It never says where an item (adjective and noun) is, what a
 * password is, or what anybody's number is, hence it cannot contradict a fact.
 */
import type { Random } from './random.ts'
import { colours, furniture, guardedNouns, itemNouns, names, passwordNouns } from './vocabulary.ts'

/** One filler sentence, with neither leading nor trailing space. */
export function createFiller(random: Random): string {
  return expand(random, '{sentence}').replace(/\b([Aa]) (?=[aeiou])/g, '$1n ')
}

function expand(random: Random, phrase: string): string {
  return phrase.replace(/\{(\w+)\}/g, (_, slot: string) => {
    const choices = grammar[slot]
    if (choices === undefined) throw new Error(`[training] no list called "${slot}" in the filler grammar`)
    return expand(random, random.pick(choices))
  })
}

const grammar: Readonly<Record<string, readonly string[]>> = {
  name: names,
  colour: colours,
  thing: itemNouns,
  wild: passwordNouns,
  building: guardedNouns,
  container: furniture.in,
  surface: furniture.on,
  digit: ['1', '2', '3', '4', '5', '6', '7', '8', '9'],
  number: ['{digit}', '{digit}0', '{digit}{digit}', '{digit}{digit}{digit}', '{digit}{digit}{digit}{digit}'],
  hour: ['1', '2', '3', '4', '5', '6', '7', '8', '9', '10', '11', '12'],

  sky: ['sky', 'evening sky', 'morning sky', 'sun', 'moon', 'horizon'],
  weather: ['rain', 'snow', 'fog', 'wind', 'a storm', 'sunshine', 'thunder', 'frost', 'hail', 'a light drizzle'],
  temper: ['cold', 'warm', 'mild', 'damp', 'bright', 'dark', 'windy', 'still', 'dry', 'foggy', 'rainy', 'cloudy'],
  place: ['valley', 'village', 'hills', 'river', 'lake', 'market', 'square', 'road', 'fields', 'woods', 'coast',
    'mountains', 'island', 'meadow', 'town', 'station', 'inn', 'bakery', 'church', 'school', '{building}'],
  room: ['kitchen', 'hall', 'parlour', 'bedroom', 'workshop', 'garden', 'yard', 'barn', 'office', 'study'],
  season: ['spring', 'summer', 'autumn', 'winter'],
  day: ['Monday', 'Tuesday', 'Wednesday', 'Thursday', 'Friday', 'Saturday', 'Sunday'],
  when: ['in the morning', 'in the evening', 'at noon', 'before dawn', 'after supper', 'at night', 'on {day}',
    'all day long', 'that afternoon', 'for a while', 'toward evening', 'in {season}'],
  opener: ['In the morning', 'In the evening', 'By noon', 'Before dawn', 'After supper', 'On {day}', 'That afternoon',
    'For a while', 'Some days later', 'Every {day}', 'In {season}', 'At the {place}', 'Outside', 'Meanwhile'],
  food: ['bread', 'soup', 'cheese', 'apple pie', 'fish', 'porridge', 'roast chicken', 'plum cake', 'rice', 'beans',
    'stew', 'honey', 'butter', 'fresh eggs', 'mushrooms', 'pancakes'],
  drink: ['tea', 'coffee', 'milk', 'cider', 'water', 'lemonade', 'hot chocolate'],
  animal: ['dog', 'cat', 'horse', 'goat', 'cow', 'donkey', 'goose', 'hen', 'sheep', 'pony', 'owl', 'fox', 'mouse'],
  trade: ['baker', 'miller', 'smith', 'tailor', 'farmer', 'sailor', 'doctor', 'teacher', 'painter', 'judge', 'mayor',
    'cook', 'shepherd', 'carpenter', 'fisherman', 'postman', 'gardener', 'singer'],
  kin: ['mother', 'father', 'sister', 'brother', 'aunt', 'uncle', 'cousin', 'neighbour', 'friend', 'grandmother'],
  who: ['{name}', '{name}', '{name}', 'the {trade}', 'an old {trade}', 'a young {trade}'],
  Who: ['{name}', '{name}', '{name}', 'The {trade}', 'An old {trade}', 'A young {trade}', 'Somebody', 'Nobody'],
  garment: ['coat', 'hat', 'shawl', 'boots', 'apron', 'cloak', 'jacket', 'umbrella'],
  craft: ['carpet', 'fence', 'wall', 'roof', 'boat', 'wagon', 'door', 'window', 'ladder', 'plough', 'curtain', 'quilt'],
  made: ['painted', 'mended', 'cleaned', 'measured', 'admired', 'drew', 'sold', 'bought', 'built', 'described'],
  mood: ['happy', 'tired', 'hungry', 'curious', 'cheerful', 'worried', 'calm', 'bored', 'busy', 'proud', 'sleepy'],
  manner: ['slowly', 'quickly', 'quietly', 'gladly', 'carefully', 'patiently', 'suddenly', 'loudly', 'softly'],
  went: ['walked', 'rode', 'ran', 'travelled', 'wandered', 'hurried', 'drove', 'climbed', 'sailed'],
  toward: ['to the {place}', 'past the {place}', 'along the {place}', 'through the {place}', 'across the {place}',
    'from the {place} to the {place}'],
  said: ['said', 'asked', 'whispered', 'replied', 'shouted', 'answered', 'muttered', 'laughed'],
  topic: ['the weather', 'the harvest', 'old songs', 'the price of {food}', 'the road to the {place}', 'the new mayor',
    'ghosts', 'the sea', 'the war', 'their school days', 'a letter from abroad', 'the {wild} in the garden'],
  game: ['cards', 'chess', 'hide and seek', 'ball', 'dominoes'],

  remark: ['It will rain before {day}', 'The {food} is better in {season}', 'I have not slept since {day}',
    'You should see the {place} in {season}', 'Nobody walks {toward} any more', 'My {kin} would like this {thing}',
    'I lost a {thing} in the {place} once', 'The {animal} wants to go out', 'There is no {drink} left',
    'We need {number} more nails', 'I never liked the {colour} {craft}', 'Have you seen my {garment}',
    'The {trade} is late again', 'I dreamed of a {colour} {wild}', 'That is a fine {surface}',
    'Somebody must feed the {animal}', 'I forgot the password again', 'My {kin} lives at number {number}',
    'Wait for me at the {building}', 'Nobody needs a password here', 'A {colour} {container} would suit this {room}',
    'Later is better than never', 'Give it to the {trade}', 'Put some {food} on the table'],

  sentence: [
    // Weather.
    'The {sky} was {colour} over the {place} {when}.',
    '{opener} there was {weather} over the {place}.',
    'It was a {temper} day, and the {place} lay under {weather}.',
    'The {season} was {temper} that year, and {who} stayed in the {room}.',
    '{weather} came down from the {place} {when}, and the {animal} hid in the {room}.',
    'A {temper} wind blew across the {place} {when}.',
    'The {colour} clouds moved {manner} over the {place}.',
    'After {number} days of {weather} the {place} was {temper} again.',
    // Travel.
    '{Who} {went} {toward} {when}.',
    '{opener} {who} {went} {manner} {toward}.',
    '{opener} {who} and {who} {went} {toward} and talked about {topic}.',
    'It was {number} miles to the next {place}, and the {animal} was {mood}.',
    'The train left the station at {hour}, and {who} missed it.',
    '{Who} counted {number} birds on the way {toward}.',
    'The road {toward} was {temper} and empty {when}.',
    '{Who} took the long way home, {toward}.',
    '{Who} crossed the {building} and came to a {colour} {building}.',
    'At last {who} came to the {place} and rested.',
    'Later {who} {went} back {toward}.',
    'A {colour} boat moved {manner} along the coast.',
    // Talk.
    '"{remark}," {said} {name}.',
    '"{remark}," {said} {name}. "{remark}."',
    '{name} {said}, "{remark}."',
    '"{remark}," {name} {said} {manner}.',
    '{name} asked {name} about {topic}, but {name} did not answer.',
    '{Who} talked about {topic} {when}.',
    '{Who} told {who} a long story about a {wild} and a {animal}.',
    '{Who} told {who} that the {trade} was {mood}.',
    'Nobody could say why the {trade} was so {mood} {when}.',
    // Home, work and meals.
    '{Who} cooked {food} in the {room} {when}.',
    '{Who} gave the {animal} some {food} and a bowl of {drink}.',
    '{Who} gave {who} a cup of {drink} {when}.',
    '{Who} put the kettle on the stove and waited.',
    '{Who} put on a {colour} {garment} and went out.',
    '{Who} left a {garment} on the {surface} and forgot about it.',
    '{Who} hung a {colour} {garment} in the {room}.',
    '{Who} put more wood on the fire {when}.',
    '{Who} sat on the {surface} and drank {drink}.',
    '{Who} sat in the {colour} {room} and read {when}.',
    '{Who} slept on the {colour} {surface} {when}.',
    '{Who} {made} a {colour} {craft} for the {trade}.',
    '{Who} {made} the {colour} {surface} in the {room}.',
    '{Who} {made} the {craft} with a {colour} brush.',
    'The {colour} {surface} in the {room} was old and {temper}.',
    'An empty {container} stood in the {room} beside the {colour} {craft}.',
    'There was a {colour} {container} at the market, but it was too dear.',
    '{Who} swept the {room} and opened the window.',
    '{Who} played {game} with {who} in the {room}.',
    '{Who} was {mood} {when}, and so was the {animal}.',
    'The {animal} of the {trade} slept under the {surface}.',
    'The {animal} followed {who} {toward}.',
    '{Who} planted {wild} and {wild} in the garden.',
    '{Who} sold a {thing} and {number} candles at the market.',
    '{Who} dreamed of a {thing} and a {wild}.',
    'A {thing} like that cost {number} pennies in the town.',
    '{Who} wrote to a {kin} about {topic}.',
    '{Who} sang an old song about a {colour} {wild}.',
    'The {kin} of {name} had {number} {colour} hens.',
    'Nobody asked for a password at the {building} that day.',
    'The clock in the {room} struck {hour}, and {who} yawned.',
    'The number of guests grew to {number} {when}.',
    'House number {number} had a {colour} door.',
    '{Who} took a {colour} apple from the {container} and ate it.',
    'Then the bell of the church rang {number} times.',
  ],
}

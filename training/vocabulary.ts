/**
 * The words that stories are made of. Facts and filler share many of them on purpose (names, colours, furniture,
 * digits, things), so that no single word tells a fact from small talk: only its sentence does.
 */

const words = (text: string): readonly string[] => text.trim().split(/\s+/)

export const names = words(`
  Mara Tom Anna Peter Clara Hugo Nora Felix Ida Oscar Lena Max Rosa Paul Vera Simon Greta Jonas Alma Victor Edith
  Henry Lucy Martin Helen Arthur Emma Daniel Flora George Irene Jacob Karin Leo Maria Nils Olga Philip Ruth Samuel
  Tessa Ulrich Wanda Xaver Yara Adam Beth Carl Dora Erik Frida Gustav Hanna Ivan Julia Konrad Lotte Magnus Nina
  Otto Petra Robert Sofia Walter`)

export const colours = words(`
  red blue green yellow white black grey brown purple orange pink silver golden amber scarlet violet`)

export const itemAdjectives = words(`
  brass copper iron silver golden wooden glass paper leather velvet old small heavy broken painted carved round
  striped red blue green white black yellow purple tiny rusty polished folded crooked`)

export const itemNouns = words(`
  key lantern ring coin letter map book knife cup spoon button ribbon bell whistle compass mirror candle flute
  feather stamp brush thimble medal watch needle locket purse ticket puzzle marble drum mask scarf glove kite fan
  bottle ladle comb dice`)

/** Where things are kept, by the preposition that goes with it. */
export const furniture = {
  in: words(
    `drawer box chest cupboard basket trunk cabinet bag barrel crate jar closet wardrobe bucket sack tin vase pot`,
  ),
  on: words(`shelf table bench desk stool chair bed sofa counter windowsill mantel rack`),
} as const

export const guardedAdjectives = words(
  `north south east west upper lower inner outer old hidden stone iron great little`,
)
export const guardedNouns = words(`gate tower cellar harbour bridge vault attic stable chapel library mill cave`)

export const passwordAdjectives = words(`
  silver golden quiet brave clever frozen gentle hollow humble jolly lazy lonely lucky misty modest noble patient
  proud rapid secret shiny silent sleepy solemn spotted stormy sturdy sunny swift tender thirsty velvet wicked
  winter crimson dusty eager early fancy fierce`)
export const passwordNouns = words(`
  otter falcon badger beaver heron lizard salmon spider sparrow tiger turtle walrus weasel wolf zebra acorn anchor
  arrow bamboo beacon canyon cedar comet coral cricket crystal desert dragon eagle ember fern forest garden ginger
  glacier hammer harvest honey island ivy jasmine jewel juniper lemon lily lotus maple meadow melon meteor mountain
  nettle oak ocean olive orchid panther pearl pebble pepper phoenix pilot planet poppy prairie quartz rabbit raven
  river rocket saddle sapphire shadow`)

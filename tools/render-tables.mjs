/** Markdown of results: sections with their commands, tables, numbers. */

/**
 * @param {readonly { command: string }[]} runs whose commands are shown
 * @param {string} body a table or a picture, or nothing
 */
export function section(title, text, runs, body) {
  const lines = runs.map(({ command }) => `npm start -- ${command.replace(/^kvasir /, '')}`)
  return [`### ${title}`, text, body, `\`\`\`text\n${lines.join('\n')}\n\`\`\``].filter(Boolean).join('\n\n')
}

/** The first `textColumns` to the left, the others to the right. */
export function table(head, rows, textColumns) {
  const rule = head.map((_, index) => (index < textColumns ? '---' : '---:'))
  return [head, rule, ...rows].map((cells) => `| ${cells.join(' | ')} |`).join('\n')
}

export function count(value) {
  return value === null ? 'all' : Number(value).toLocaleString('en-US')
}

export function mebibytes(value) {
  const size = value / 2 ** 20
  return `${size >= 100 ? size.toFixed(0) : size.toPrecision(3)} MiB`
}

/** As `mebibytes`, KiB where that says more; nothing for undefined. */
export function bytes(value) {
  if (value === undefined) return ''
  return value < 2 ** 20 ? `${(value / 1024).toFixed(0)} KiB` : mebibytes(value)
}

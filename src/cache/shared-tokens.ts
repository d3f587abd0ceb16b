/** Tokens of one layer that keeps everything, by reference: rows in pages, and their importance. */
import type { SharedRows } from './contract.ts'

export class SharedTokens implements SharedRows {
  readonly rows: SharedRows
  readonly count: number
  /** `[K, count]` */
  readonly scores: Float32Array | undefined

  constructor(rows: SharedRows, count: number, scores: Float32Array | undefined) {
    this.rows = rows
    this.count = count
    this.scores = scores
  }

  get bytes(): number {
    return this.rows.bytes + (this.scores?.byteLength ?? 0)
  }

  free(): void {
    this.rows.free()
  }
}

/** Kernels whose memory begins as NaN, and where what lies past the rows of a head turns to NaN before each attention. */
import type { AttendArgs, Kernels, KeyValueSegment, StorageArray, StorageType } from '../../kernels/index.ts'
import { rowLength, storagesOf } from '../../kernels/storage.ts'

/** All bits set: NaN as f32, f16, bf16 and in the scale of a quantized row. */
const poison = 0xff

/** @param mayShare whether pages may hold rows of other sequences past those of this one */
export function poisoned(kernels: Kernels, mayShare: () => boolean): Kernels {
  return {
    ...kernels,
    alloc(byteLength) {
      const memory = kernels.alloc(byteLength)
      memory.u16.fill(poison * 257)
      return memory
    },
    attend(args) {
      spoil(args, mayShare())
      kernels.attend(args)
    },
    weigh(args) {
      spoil(args, mayShare())
      kernels.weigh(args)
    },
  }
}

function spoil({ segments, numKvHeads, headDim, valueDim }: AttendArgs, mayShare: boolean): void {
  for (const segment of segments) {
    const { capacity, lengths, layout, rows, bias } = segment
    const { keyStorage, valueStorage } = storagesOf(segment)
    for (let k = 0; k < numKvHeads && !rows; k++) {
      const length = lengths[k] as number
      bias?.fill(Number.NaN, k * capacity + length, (k + 1) * capacity)
      const [first, count] = layout === 'shared' ? restOfPage(segment, k) : [k * capacity + length, capacity - length]
      if (layout === 'shared' && mayShare) continue
      spoilRows(segment.keys, keyStorage, headDim, first, count)
      // Where nobody reads values, those of keys stand in for them, in rows of another width.
      if (!isSame(segment.keys, segment.values)) spoilRows(segment.values, valueStorage, valueDim, first, count)
    }
  }
}

function isSame(one: StorageArray, other: StorageArray): boolean {
  return one.buffer === other.buffer && one.byteOffset === other.byteOffset
}

/** What is left of the last page of a head: its first row, and how many. */
function restOfPage(
  { pages, pageSize = 1, pagesStride = 0, lengths }: KeyValueSegment,
  head: number,
): [number, number] {
  const length = lengths[head] as number
  const used = length % pageSize
  if (!pages || used === 0) return [0, 0]
  const page = pages[head * pagesStride + Math.floor(length / pageSize)] as number
  return [page * pageSize + used, pageSize - used]
}

function spoilRows(plane: StorageArray, storage: StorageType, dim: number, first: number, count: number): void {
  const bytes = new Uint8Array(plane.buffer, plane.byteOffset, plane.byteLength)
  const row = rowLength(dim, storage) * plane.BYTES_PER_ELEMENT
  bytes.fill(poison, first * row, (first + count) * row)
}

/** Bits an element, by TensorProto.DataType; strings (8) have none. */
export const elementBits: Readonly<Record<number, number>> = {
  ...{ 1: 32, 2: 8, 3: 8, 4: 16, 5: 16, 6: 32, 7: 64, 9: 8, 10: 16, 11: 64, 12: 32, 13: 64, 14: 64, 15: 128, 16: 16 },
  ...{ 17: 8, 18: 8, 19: 8, 20: 8, 21: 4, 22: 4, 23: 4 },
}

/** Bytes of one element of a type that has whole ones. */
export function bytesOf(type: number): number {
  return (elementBits[type] ?? 0) / 8
}

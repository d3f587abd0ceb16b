import { describe, expect, it } from 'vitest'
import { BufferPool } from './buffer-pool.ts'

describe('the buffer pool', () => {
  it('gives the same memory again, for smaller needs too', () => {
    const pool = new BufferPool()
    const first = pool.take(1000)
    pool.give(first)
    const second = pool.take(900)
    expect(second.length).toBe(900)
    expect(second.buffer).toBe(first.buffer)
  })

  it('never gives memory that is in use, even when it is given back twice', () => {
    const pool = new BufferPool()
    const first = pool.take(8)
    expect(pool.take(8).buffer).not.toBe(first.buffer)
    pool.give(first)
    pool.give(first)
    expect(pool.take(8).buffer).not.toBe(pool.take(8).buffer)
  })

  it('takes the tightest fit, and nothing far too large', () => {
    const pool = new BufferPool()
    const buffers = [100_000, 3000, 5000].map((length) => pool.take(length))
    for (const buffer of buffers) pool.give(buffer)
    expect(pool.take(2900).buffer).toBe(buffers[1]!.buffer)
    expect(pool.take(2900).buffer).toBe(buffers[2]!.buffer)
    expect(pool.take(2900).buffer).not.toBe(buffers[0]!.buffer)
  })

  it('leaves memory of others alone', () => {
    const pool = new BufferPool()
    const foreign = new Float32Array(8)
    pool.give(foreign)
    expect(pool.take(8).buffer).not.toBe(foreign.buffer)
  })

  it('gives back a part of a buffer as the whole', () => {
    const pool = new BufferPool()
    const first = pool.take(64)
    pool.give(first.subarray(3, 5))
    expect(pool.take(64).buffer).toBe(first.buffer)
  })
})

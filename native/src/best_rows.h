// The best of rows that go by one after the other, by (score, row): a heap of 64-bit integers whose order is that of
// the pairs, the least of them on top.
#pragma once
#include <stdint.h>

namespace kvasir {

// Floats as integers of the same order; -0 counts as 0.
static inline uint64_t key_of(float score, uint32_t row) {
  uint32_t bits;
  score += 0.0f;
  __builtin_memcpy(&bits, &score, 4);
  bits = bits & 0x80000000u ? ~bits : bits | 0x80000000u;
  return (uint64_t)bits << 32 | row;
}

// The float that a key was made of, but for the sign of 0.
static inline float score_of(uint64_t key) {
  uint32_t bits = (uint32_t)(key >> 32);
  bits = bits & 0x80000000u ? bits & 0x7fffffffu : ~bits;
  float score;
  __builtin_memcpy(&score, &bits, 4);
  return score;
}

struct BestRows {
  uint64_t* keys;  // [most]
  int64_t most, count;

  // What scores less need not be offered.
  float floor() const { return count < most || most == 0 ? -__builtin_inff() : score_of(keys[0]); }

  void offer(uint64_t key) {
    if (count < most) {
      rise(count++, key);
    } else if (key > keys[0]) {
      sink(key);
    }
  }

  uint64_t take_least() {
    const uint64_t least = keys[0], last = keys[--count];
    if (count > 0) sink(last);
    return least;
  }

  // What is in it, as rows that ascend; it is empty then.
  int32_t take_rows(int32_t* rows) {
    const int64_t length = count;
    count = 0;
    for (int64_t i = 0; i < length; i++) rise(count++, (uint32_t)keys[i]);
    for (int64_t i = 0; i < length; i++) rows[i] = (int32_t)take_least();
    return (int32_t)length;
  }

 private:
  void rise(int64_t at, uint64_t key) {
    while (at > 0 && keys[(at - 1) / 2] > key) {
      keys[at] = keys[(at - 1) / 2];
      at = (at - 1) / 2;
    }
    keys[at] = key;
  }

  // In the place of the one on top.
  void sink(uint64_t key) {
    int64_t at = 0;
    for (int64_t next = 1; next < count; next = 2 * at + 1) {
      if (next + 1 < count && keys[next + 1] < keys[next]) next++;
      if (key <= keys[next]) break;
      keys[at] = keys[next];
      at = next;
    }
    keys[at] = key;
  }
};

}  // namespace kvasir

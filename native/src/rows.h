// Which stored rows a query, or a tile of queries, has to look at.
#pragma once
#include "math.h"

namespace kvasir {
namespace KVASIR_ISA {

// Rows of one KV head that some query at positions [first, last] sees, in order, as pointers. Rows that none of them
// sees are never read: their memory may hold anything. kDated: births and deaths are wanted too.
template <typename X, int kCapacity, bool kDated>
struct VisibleRows {
  const X* keys[kCapacity];
  const X* values[kCapacity];
  float bias[kCapacity];
  int32_t births[kDated ? kCapacity : 1], deaths[kDated ? kCapacity : 1];
  int count = 0;
  bool all_visible = true;  // by every query in [first, last]

  bool has_room_for_block() const { return count + kBlockRows <= kCapacity; }
  void clear() {
    count = 0;
    all_visible = true;
  }

  // Adds entries [begin, end) of a segment, at most kBlockRows of them.
  void gather(const Segment& segment, int head, int64_t begin, int64_t end, int32_t first, int32_t last) {
    const int64_t base = head * segment.capacity;
    const int32_t* birth_of = segment.births ? segment.births + base : nullptr;
    const int32_t* death_of = segment.deaths ? segment.deaths + base : nullptr;
    const int32_t* row_of = segment.rows ? segment.rows + base : nullptr;
    if (!row_of && block_is_hidden(birth_of, death_of, begin, end, first, last)) return;
    const X* key = (const X*)segment.keys + head * segment.key_head_stride;
    const X* value = (const X*)segment.values + head * segment.value_head_stride;
    const float* bias_of = segment.bias ? segment.bias + base : nullptr;
    if (!kDated && !row_of && !birth_of && !death_of && !any_hidden(bias_of, begin, end)) {
      const int rows = (int)(end - begin);
      for (int j = 0; j < rows; j++) keys[count + j] = key + (begin + j) * segment.key_row_stride;
      for (int j = 0; j < rows; j++) values[count + j] = value + (begin + j) * segment.value_row_stride;
      for (int j = 0; j < rows; j++) bias[count + j] = bias_of ? bias_of[begin + j] : 0.0f;
      count += rows;
      return;
    }
    for (int64_t j = begin; j < end; j++) {
      const int64_t row = row_of ? row_of[j] : j;
      if (row < 0 || row >= segment.capacity) continue;
      const int32_t birth = birth_of ? birth_of[row] : -kNever, death = death_of ? death_of[row] : kNever;
      const float row_bias = bias_of ? bias_of[row] : 0.0f;
      if (birth > last || death <= first || row_bias == -__builtin_inff()) continue;
      all_visible = all_visible && birth <= first && death > last;
      keys[count] = key + row * segment.key_row_stride;
      values[count] = value + row * segment.value_row_stride;
      bias[count] = row_bias;
      if (kDated) {
        births[count] = birth;
        deaths[count] = death;
      }
      count++;
    }
  }

 private:
  static bool any_hidden(const float* bias, int64_t begin, int64_t end) {
    bool hidden = false;
    for (int64_t j = begin; bias && j < end; j++) hidden |= bias[j] == -__builtin_inff();
    return hidden;
  }

  // The skip that makes windows and linear caches cheap: by the earliest birth and the latest death of the block.
  static bool block_is_hidden(const int32_t* births, const int32_t* deaths, int64_t begin, int64_t end, int32_t first,
                              int32_t last) {
    int32_t earliest = births ? kNever : -kNever, latest = deaths ? -kNever : kNever;
    if (births) {
      for (int64_t j = begin; j < end; j++) earliest = births[j] < earliest ? births[j] : earliest;
    }
    if (deaths) {
      for (int64_t j = begin; j < end; j++) latest = deaths[j] > latest ? deaths[j] : latest;
    }
    return earliest > last || latest <= first;
  }
};

}  // namespace KVASIR_ISA
}  // namespace kvasir

// Which stored rows a query, or a tile of queries, has to look at.
#pragma once
#include "storage.h"

namespace kvasir {
namespace KVASIR_ISA {

// Rows are looked at in blocks of this many: memory works on one while the one before is computed, and blocks of f16 fit
// in the first-level cache for the heads that come after the first. What rows of bytes need once a block (weights as
// integers, sums as floats) is a good part of their work.
#if defined(__AVX512VNNI__)
constexpr int kBlockRows = 128;
#else
constexpr int kBlockRows = 64;
#endif

// The queries at positions [first, last] of a call, and what they see by position.
struct Sight {
  int32_t first, last;
  int64_t left, right, sinks;
  bool wants_positions, wants_entries;
  Sight(const AttendArgs& args, int32_t first_, int32_t last_)
      : first(first_), last(last_), left(args.left), right(args.right), sinks(args.sinks),
        wants_positions(args.alibi_slopes != nullptr), wants_entries(args.logits != nullptr) {}
};

// When a row is visible: births <= position < deaths.
struct Lifetime {
  int64_t birth, death;
};

// Entries [begin, end) of one head of a segment; row-wise questions about them.
struct Stretch {
  const Segment& segment;
  const int32_t *births, *deaths, *rows, *positions;
  const float* bias;
  const int32_t* pages;

  Stretch(const Segment& segment_, int head) : segment(segment_) {
    const int64_t base = head * segment.capacity;
    births = segment.births ? segment.births + base : nullptr;
    deaths = segment.deaths ? segment.deaths + base : nullptr;
    rows = segment.rows ? segment.rows + base : nullptr;
    positions = segment.positions ? segment.positions + base : nullptr;
    bias = segment.bias ? segment.bias + base : nullptr;
    pages = segment.pages ? segment.pages + head * segment.pages_stride : nullptr;
  }

  // Which row of storage holds entry j; negative: none, the table is broken.
  int64_t row_of(int64_t j) const {
    int64_t row = j;
    if (rows) row = rows[j];
    else if (pages) row = pages[j / segment.page_size] * segment.page_size + j % segment.page_size;
    return row < segment.num_rows ? row : -1;
  }
  // Where the arrays speak of entry j, which lies in `row`.
  int64_t index_of(int64_t j, int64_t row) const { return rows ? row : j; }
  int64_t position_of(int64_t index) const { return positions ? positions[index] : segment.first_position + index; }

  Lifetime lifetime(int64_t index, const Sight& sight) const {
    Lifetime life = {births ? births[index] : -(int64_t)kNever, deaths ? deaths[index] : kNever};
    if (!segment.has_positions) return life;
    const int64_t position = position_of(index);
    if (sight.right != kNever) life.birth = max64(life.birth, position - sight.right);
    if (sight.left != kNever && position >= sight.sinks) life.death = min64(life.death, position + sight.left + 1);
    return life;
  }

  // True when no query sees any of the entries: what makes windows and linear caches cheap.
  bool is_hidden(int64_t begin, int64_t end, const Sight& sight) const {
    if (rows) return false;
    int64_t earliest = births ? kNever : -(int64_t)kNever, latest = deaths ? -(int64_t)kNever : kNever;
    if (births) {
      for (int64_t j = begin; j < end; j++) earliest = births[j] < earliest ? births[j] : earliest;
    }
    if (deaths) {
      for (int64_t j = begin; j < end; j++) latest = deaths[j] > latest ? deaths[j] : latest;
    }
    if (segment.has_positions && !positions) {
      const int64_t low = segment.first_position + begin, high = segment.first_position + end - 1;
      if (sight.right != kNever) earliest = max64(earliest, low - sight.right);
      if (sight.left != kNever && low >= sight.sinks) latest = min64(latest, high + sight.left + 1);
    }
    return earliest > sight.last || latest <= sight.first;
  }

  // True when, without looking at single rows, all queries are known to see all entries.
  bool is_plain(int64_t begin, int64_t end, const Sight& sight) const {
    if (rows || segment.mask.values) return false;
    int32_t latest_birth = -kNever, earliest_death = kNever;
    for (int64_t j = begin; births && j < end; j++) latest_birth = births[j] > latest_birth ? births[j] : latest_birth;
    for (int64_t j = begin; deaths && j < end; j++) {
      earliest_death = deaths[j] < earliest_death ? deaths[j] : earliest_death;
    }
    if (latest_birth > sight.first || earliest_death <= sight.last) return false;
    if (segment.has_positions) {
      if (positions && (sight.left != kNever || sight.right != kNever)) return false;
      const int64_t low = segment.first_position + begin, high = segment.first_position + end - 1;
      if (!positions && sight.right != kNever && high > sight.first + sight.right) return false;
      if (!positions && sight.left != kNever && low < sight.last - sight.left) return false;
    }
    bool hidden = false;
    for (int64_t j = begin; bias && j < end; j++) hidden |= bias[j] == -__builtin_inff();
    return !hidden;
  }
};

static inline int32_t clamp_position(int64_t position) {
  return (int32_t)max64(-(int64_t)kNever, min64(kNever, position));
}

// Rows of one KV head that some query at positions [first, last] sees, in order, as pointers. Rows that none of them
// sees are never read: their memory may hold anything. kDated: births and deaths are wanted too.
template <int kCapacity, bool kDated>
struct VisibleRows {
  const char* keys[kCapacity];
  const char* values[kCapacity];
  float bias[kCapacity];  // when has_bias
  int32_t births[kDated ? kCapacity : 1], deaths[kDated ? kCapacity : 1];
  int32_t positions[kCapacity];  // when wanted: for ALiBi
  int32_t entries[kCapacity];    // when there is a mask, or wanted
  const LogitMask* mask;
  int64_t key_stride, value_stride;  // of the segment that the first row came from
  Storage key_storage, value_storage;  // of all rows
  int count;
  bool has_bias, all_visible;  // by every query in [first, last]

  VisibleRows() { clear(); }
  bool has_storage_of(const Segment& segment) const {
    return count == 0 || (key_storage == segment.key_storage && value_storage == segment.value_storage);
  }
  bool has_room_for(int rows) const { return count + rows <= kCapacity; }
  void clear() {
    count = 0;
    all_visible = true;
    has_bias = false;
    mask = nullptr;
  }

  // Adds entries [begin, end) of a segment, for which there has to be room. Rows of segments with different masks or storages
  // must not be mixed.
  void gather(const Segment& segment, int head, int64_t begin, int64_t end, const Sight& sight) {
    const Stretch stretch(segment, head);
    if (stretch.is_hidden(begin, end, sight)) return;
    if (count == 0) {
      key_storage = segment.key_storage;
      value_storage = segment.value_storage;
      key_stride = segment.key_row_stride;
      value_stride = segment.value_row_stride;
    }
    if (stretch.bias && !has_bias) {
      for (int j = 0; j < count; j++) bias[j] = 0.0f;
      has_bias = true;
    }
    if (!stretch.is_plain(begin, end, sight)) add_visible(stretch, head, begin, end, sight);
    else if (stretch.pages) add_pages(stretch, head, begin, end, sight);
    else add_all(stretch, head, begin, begin, (int)(end - begin), sight);
    // Up to a multiple of what is looked at together, pointers to the last row again.
    for (int j = count; !kDated && count > 0 && j % kAccumulators; j++) {
      keys[j] = keys[count - 1];
      values[j] = values[count - 1];
    }
  }

 private:
  // Page by page.
  void add_pages(const Stretch& stretch, int head, int64_t begin, int64_t end, const Sight& sight) {
    const int64_t page_size = stretch.segment.page_size;
    for (int64_t j = begin; j < end;) {
      const int64_t row = stretch.row_of(j), rows = min64(end - j, page_size - j % page_size);
      if (row >= 0) add_all(stretch, head, j, row, (int)min64(rows, stretch.segment.num_rows - row), sight);
      j += rows;
    }
  }

  // The common case, without a question for each row: entries from `begin` on, which lie in rows from `first` on.
  void add_all(const Stretch& stretch, int head, int64_t begin, int64_t first, int rows, const Sight& sight) {
    const Segment& segment = stretch.segment;
    const int64_t key_stride = segment.key_row_stride, value_stride = segment.value_row_stride;
    const char* key = segment.keys + head * segment.key_head_stride + first * key_stride;
    const char* value = segment.values + head * segment.value_head_stride + first * value_stride;
    for (int j = 0; j < rows; j++) keys[count + j] = key + j * key_stride;
    for (int j = 0; j < rows; j++) values[count + j] = value + j * value_stride;
    if (has_bias) {
      for (int j = 0; j < rows; j++) bias[count + j] = stretch.bias ? stretch.bias[begin + j] : 0.0f;
    }
    if (sight.wants_entries) {
      for (int j = 0; j < rows; j++) entries[count + j] = (int32_t)(begin + j);
    }
    if (sight.wants_positions) {
      for (int j = 0; j < rows; j++) positions[count + j] = (int32_t)stretch.position_of(begin + j);
    }
    if (kDated) {
      for (int j = 0; j < rows; j++) births[count + j] = -kNever;
      for (int j = 0; j < rows; j++) deaths[count + j] = kNever;
    }
    count += rows;
  }

  void add_visible(const Stretch& stretch, int head, int64_t begin, int64_t end, const Sight& sight) {
    const Segment& segment = stretch.segment;
    const char* key = segment.keys + head * segment.key_head_stride;
    const char* value = segment.values + head * segment.value_head_stride;
    if (segment.mask.values) {
      mask = &segment.mask;
      all_visible = false;
    }
    for (int64_t j = begin; j < end; j++) {
      const int64_t row = stretch.row_of(j), index = stretch.index_of(j, row);
      if (row < 0) continue;
      const Lifetime life = stretch.lifetime(index, sight);
      if (life.birth > sight.last || life.death <= sight.first) continue;
      if (has_bias) {
        bias[count] = stretch.bias ? stretch.bias[index] : 0.0f;
        if (bias[count] == -__builtin_inff()) continue;
      }
      all_visible = all_visible && life.birth <= sight.first && life.death > sight.last;
      keys[count] = key + row * segment.key_row_stride;
      values[count] = value + row * segment.value_row_stride;
      entries[count] = (int32_t)j;
      if (sight.wants_positions) positions[count] = (int32_t)stretch.position_of(index);
      if (kDated) {
        births[count] = clamp_position(life.birth);
        deaths[count] = clamp_position(life.death);
      }
      count++;
    }
  }
};

}  // namespace KVASIR_ISA
}  // namespace kvasir

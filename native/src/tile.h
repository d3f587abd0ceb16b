// The state of a task of many query tokens: strips of 64 queries (tokens x heads of a group, as columns), and a block of
// rows of one KV head, made ready once for all strips.
#pragma once
#include "logits.h"
#include "matrix_unit.h"

namespace kvasir {
namespace KVASIR_ISA {

// What belongs to 64 queries. Column m is token first_token + m / width, head first_head + m % width.
struct Strip {
  float* q;    // [D, 64]
  float* out;  // [E up to a whole tile register, 64]
  float* max;  // [64]
  float* sum;  // [64]
  int32_t* positions;  // [64]
  MatrixQueries matrix;
  int first_head, first_token, num_tokens, width;  // width: heads of a token

  int num_queries() const { return num_tokens * width; }
  int columns() const { return padded(num_queries()); }
  int token_of(int m) const { return first_token + m / width; }
  int head_of(int m) const { return first_head + m % width; }
};

// What the next block will need, asked for row by row while this one is computed: rows of one head may lie far from each
// other, where processors don't look ahead by themselves. Taken to lie as the rows of this block do; asking for what isn't
// there does no harm, but in WebAssembly it does.
constexpr bool kAsksAhead = kLanes > 4;

struct Ahead {
  const char* rows[2];  // of K and V
  int64_t strides[2], bytes[2];
  int which, left, at_once;  // rows

  // Strips ask 64 times each: together for all rows.
  void begin(const TileRows& block, int head_dim, int value_dim, int num_strips) {
    rows[0] = block.keys[block.count - 1] + block.key_stride;
    rows[1] = block.values[block.count - 1] + block.value_stride;
    strides[0] = block.key_stride;
    strides[1] = block.value_stride;
    bytes[0] = row_bytes(block.key_storage, head_dim);
    bytes[1] = row_bytes(block.value_storage, value_dim);
    which = 0;
    left = kAsksAhead ? 2 * block.count : 0;
    at_once = (2 * kTileBlock / 64 - 1) / num_strips + 1;
  }

  void ask() {
    for (int i = 0; i < at_once && left > 0; i++, left--) {
      for (int64_t at = 0; at < bytes[which]; at += 64) __builtin_prefetch(rows[which] + at, 0, 2);
      rows[which] += strides[which];
      which = 1 - which;
    }
  }
};

// With four lanes arithmetic takes so long that four strips are enough, and calls of WebAssembly may be cut shorter.
constexpr int kMostStrips = kLanes > 4 ? 8 : 4;

struct Tile {
  int num_strips, head_dim, value_dim;
  int64_t out_rows, key_stride, value_stride;
  Strip strips[kMostStrips];
  float* scores;  // [128, 64], of the strip at hand
  float* keys;    // [128, key_stride] f32, once keys_widened
  float* values;  // [128, value_stride] f32, once values_widened
  float* vectors;  // [kLanes, D or E]
  TileRows* rows;
  MatrixTile matrix;
  Ahead ahead;
  bool keys_widened, values_widened, values_finite;
  // Where nothing is added to scores, they and their maxima stay as the product left them, and the scale waits until a
  // maximum is subtracted, together with log2(e). Else they are logits.
  bool is_raw;
  float to_powers;  // from q . k to powers of two

  void choose_scale(const AttendArgs& args) {
    to_powers = args.scale * 1.44269504088896341f;
    is_raw = to_powers > 1e-30f && to_powers < 1e30f && !shapes_logits(args, nullptr);
    for (int s = 0; s < args.num_segments; s++) {
      is_raw = is_raw && !args.segments[s].bias && !args.segments[s].mask.values;
    }
  }

  // The first queries to read a block pay for making it ready, so more strips are better, as long as there are tasks for
  // all threads and the strips stay in the second-level cache.
  static int strips_of(const AttendArgs& args, int64_t all_strips) {
    const int64_t by_tasks = all_strips / (8 * kMostStrips), by_size = 2304 / (args.head_dim + args.value_dim);
    return (int)max64(1, min64(kMostStrips, min64(by_tasks, by_size)));
  }

  // An odd number of cache lines: the same column of all rows does not fall on a few sets of the cache.
  static int64_t odd_lines(int64_t floats) { return ((floats + 15) / 16 | 1) * 16; }

  int64_t place(const AttendArgs& args, int strip_count, char* base) {
    Arena arena{base};
    num_strips = strip_count;
    head_dim = args.head_dim;
    value_dim = args.value_dim;
    out_rows = (value_dim + 15) / 16 * 16;
    key_stride = odd_lines(head_dim);
    value_stride = odd_lines(value_dim);
    matrix.place(args, arena);
    for (int s = 0; s < num_strips; s++) {
      Strip& strip = strips[s];
      strip.q = arena.take<float>((int64_t)head_dim * kStripQueries);
      strip.out = arena.take<float>(out_rows * kStripQueries);
      strip.max = arena.take<float>(kStripQueries);
      strip.sum = arena.take<float>(kStripQueries);
      strip.positions = arena.take<int32_t>(kStripQueries);
      matrix.place_queries(arena, &strip.matrix);
    }
    scores = arena.take<float>(kTileBlock * kStripQueries);
    keys = arena.take<float>(kTileBlock * key_stride);
    values = arena.take<float>(kTileBlock * value_stride);
    vectors = arena.take<float>(kLanes * (int64_t)padded(head_dim > value_dim ? head_dim : value_dim));
    rows = arena.take<TileRows>(1);
    return arena.used;
  }

  float* score_at(int j, int m) const { return panel_at(scores, kTileBlock, j, m); }

  // K of the block as f32.
  const float* widened_keys() {
    const auto widen = kRowKernels[(int)rows->key_storage].widen;
    for (int j = 0; j < rows->count && !keys_widened; j++) widen(keys + j * key_stride, rows->keys[j], head_dim);
    keys_widened = true;
    return keys;
  }

  // V of the block as f32; values_finite says whether there are neither infinities nor NaN.
  const float* widened_values() {
    if (values_widened) return values;
    const auto widen = kRowKernels[(int)rows->value_storage].widen;
    F sum = zero();
    for (int j = 0; j < rows->count; j++) {
      float* to = values + j * value_stride;
      widen(to, rows->values[j], value_dim);
      for (int e = 0; e < value_dim; e += kLanes) sum = fma(load(to + e), zero(), sum);
    }
    values_finite = reduce_add(sum) == 0.0f;
    values_widened = true;
    return values;
  }
};

// Which rows of the block some query of the strip sees.
static RowRange range_of(const AttendArgs& args, const TileRows& rows, const Strip& strip) {
  RowRange range = {0, rows.count, true};
  if (rows.all_visible) return range;
  const int32_t first = args.first_position + strip.first_token, last = first + strip.num_tokens - 1;
  const auto is_hidden = [&](int j) { return rows.births[j] > last || rows.deaths[j] <= first; };
  while (range.end > 0 && is_hidden(range.end - 1)) range.end--;
  while (range.begin < range.end && is_hidden(range.begin)) range.begin++;
  range.begin = range.begin / 32 * 32;
  range.all_visible = !rows.mask;
  for (int j = range.begin; j < range.end && range.all_visible; j++) {
    range.all_visible = rows.births[j] <= first && rows.deaths[j] > last;
  }
  return range;
}

}  // namespace KVASIR_ISA
}  // namespace kvasir

// Attention of many query tokens: a tile of queries (tokens x the G heads of a group, as columns) against blocks of
// rows, as two small matrix products with an online softmax between them.
//
//   S[j, m] = k[j] . q[m]     rows j of K are read as scalars, the columns m fill the vectors: K needs no transpose
//   softmax down the columns: each lane is one query, so nothing is reduced across lanes
//   O[m, e] += P[j, m] v[j, e]
//
// K and V are widened to f32 once per block and tile and shared by all heads of the group; V into panels as wide as the
// product's register tile, so that a panel lies in consecutive cache lines.
#pragma once
#include "logits.h"
#include "matrix_unit.h"

namespace kvasir {
namespace KVASIR_ISA {

constexpr int kTileQueries = 64;  // columns of a tile, a multiple of every kLanes * kTileVectors
constexpr int kPanel = kTileVectors * kLanes;  // columns of a register tile

struct Tile {
  float* q;       // [D, 64] transposed
  float* scores;  // [128, 64]
  float* out;     // [64, padded E]
  float* max;     // [64]
  float* sum;     // [64]
  float* keys;    // [128, D]
  float* values;  // panels [128, 64] (the last one narrower)
  float* row;     // [padded E]
  int32_t* positions;  // [64]
  TileRows* rows;
  MatrixTile matrix;
  int first_head, first_token, num_queries, width, head_dim, value_dim;  // width: heads of a token

  static int64_t place(const AttendArgs& args, char* base, Tile* tile) {
    Arena arena{base};
    tile->head_dim = args.head_dim;
    tile->value_dim = args.value_dim;
    tile->q = arena.take<float>((int64_t)args.head_dim * kTileQueries);
    tile->scores = arena.take<float>(kTileBlock * kTileQueries);
    tile->out = arena.take<float>((int64_t)kTileQueries * padded(args.value_dim));
    tile->max = arena.take<float>(kTileQueries);
    tile->sum = arena.take<float>(kTileQueries);
    tile->keys = arena.take<float>((int64_t)kTileBlock * padded(args.head_dim));
    tile->values = arena.take<float>((int64_t)kTileBlock * padded(args.value_dim));
    tile->row = arena.take<float>(padded(args.value_dim));
    tile->positions = arena.take<int32_t>(kTileQueries);
    tile->rows = arena.take<TileRows>(1);
    MatrixTile::place(args, arena, &tile->matrix);
    return arena.used;
  }

  // Where element e of row j of V lies: panel by panel.
  int panel_width(int e) const {
    const int left = padded(value_dim) - e / kPanel * kPanel;
    return left < kPanel ? left : kPanel;
  }
  float* value_at(int j, int e) const {
    return values + (int64_t)kTileBlock * (e / kPanel * kPanel) + j * panel_width(e) + e % kPanel;
  }

  // Column m is token first_token + m / width, head first_head + m % width.
  int token_of(int m) const { return first_token + m / width; }
  int head_of(int m) const { return first_head + m % width; }
};

// c[i, n] (+)= sum_k a(i, k) b[k, n] for kRows rows and kVectors vectors; a(i, k) = a[i * row_step + k * inner_step].
template <int kRows, int kVectors, bool kAccumulate>
static inline void multiply_tile(const float* a, int64_t row_step, int64_t inner_step, const float* b, int64_t b_stride,
                                 int inner, float* c, int64_t c_stride) {
  F sum[kRows][kVectors];
  for (int i = 0; i < kRows; i++) {
    for (int n = 0; n < kVectors; n++) sum[i][n] = kAccumulate ? load(c + i * c_stride + n * kLanes) : zero();
  }
  for (int k = 0; k < inner; k++) {
    F right[kVectors];
    for (int n = 0; n < kVectors; n++) right[n] = load(b + k * b_stride + n * kLanes);
    for (int i = 0; i < kRows; i++) {
      const F left = broadcast(a[i * row_step + k * inner_step]);
      for (int n = 0; n < kVectors; n++) sum[i][n] = fma(left, right[n], sum[i][n]);
    }
  }
  for (int i = 0; i < kRows; i++) {
    for (int n = 0; n < kVectors; n++) store(c + i * c_stride + n * kLanes, sum[i][n]);
  }
}

template <int kRows, int kVectors, bool kAccumulate>
static inline int multiply_strip(int i, const float* a, int64_t row_step, int64_t inner_step, const float* b,
                                 int64_t b_stride, int rows, int inner, float* c, int64_t c_stride) {
  for (; i + kRows <= rows; i += kRows) {
    multiply_tile<kRows, kVectors, kAccumulate>(a + i * row_step, row_step, inner_step, b, b_stride, inner,
                                                c + i * c_stride, c_stride);
  }
  return i;
}

template <int kVectors, bool kAccumulate>
static void multiply_columns(const float* a, int64_t row_step, int64_t inner_step, const float* b, int64_t b_stride,
                             int rows, int inner, float* c, int64_t c_stride) {
  int i = 0;
  i = multiply_strip<kTileRows, kVectors, kAccumulate>(i, a, row_step, inner_step, b, b_stride, rows, inner, c, c_stride);
  i = multiply_strip<4, kVectors, kAccumulate>(i, a, row_step, inner_step, b, b_stride, rows, inner, c, c_stride);
  i = multiply_strip<2, kVectors, kAccumulate>(i, a, row_step, inner_step, b, b_stride, rows, inner, c, c_stride);
  multiply_strip<1, kVectors, kAccumulate>(i, a, row_step, inner_step, b, b_stride, rows, inner, c, c_stride);
}

// The whole product; `columns` is a multiple of kLanes.
template <bool kAccumulate>
static void multiply(const float* a, int64_t row_step, int64_t inner_step, const float* b, int64_t b_stride, int rows,
                     int inner, int columns, float* c, int64_t c_stride) {
  int n = 0;
  for (; n + kTileVectors * kLanes <= columns; n += kTileVectors * kLanes) {
    multiply_columns<kTileVectors, kAccumulate>(a, row_step, inner_step, b + n, b_stride, rows, inner, c + n, c_stride);
  }
  for (; n < columns; n += kLanes) {
    multiply_columns<1, kAccumulate>(a, row_step, inner_step, b + n, b_stride, rows, inner, c + n, c_stride);
  }
}

// Scale, soft cap, ALiBi and mask of the scores.
static void shape_tile(const AttendArgs& args, Tile& tile) {
  const TileRows& rows = *tile.rows;
  for (int j = 0; j < rows.count; j++) {
    float* scores = tile.scores + (int64_t)j * kTileQueries;
    for (int m = 0; m < tile.num_queries; m += kLanes) store(scores + m, mul(load(scores + m), broadcast(args.scale)));
    for (int m = 0; args.softcap > 0 && m < tile.num_queries; m += kLanes) {
      store(scores + m, soft_capped(load(scores + m), args.softcap));
    }
    for (int m = 0; args.alibi_slopes && m < tile.num_queries; m++) {
      scores[m] -= args.alibi_slopes[tile.head_of(m)] * distance(tile.positions[m], rows.positions[j]);
    }
    for (int m = 0; rows.mask && m < tile.num_queries; m++) {
      scores[m] = masked(scores[m], mask_at(*rows.mask, tile.head_of(m), tile.token_of(m), rows.entries[j]));
    }
  }
}

constexpr float kLowest = -3.40282347e38f;  // the lowest finite f32: some models mask with it

// Scores times scale, bias and lifetimes for one vector of queries; returns the maximum of `top` and all of them.
static F finish_column(Tile& tile, int m, F scale, F top) {
  const TileRows& rows = *tile.rows;
  float* column = tile.scores + m;
  for (int j = 0; j < rows.count; j++) {
    F score = load(column + j * kTileQueries);
    score = rows.has_bias ? fma(score, scale, broadcast(rows.bias[j])) : mul(score, scale);
    if (!rows.all_visible) score = hide(score, tile.positions + m, rows.births[j], rows.deaths[j]);
    store(column + j * kTileQueries, score);
    top = max(top, score);
  }
  return top;
}

// The same where all rows are visible and have no bias, and the scale is positive: nothing but the maximum is wanted,
// since the scale can wait.
static F top_of_column(const Tile& tile, int m, F scale, F top) {
  const float* column = tile.scores + m;
  F highest = load(column);
  for (int j = 1; j < tile.rows->count; j++) highest = max(highest, load(column + j * kTileQueries));
  return max(top, mul(highest, scale));
}

// Scores to weights for one vector of queries, running maximum and running sum.
static void soften_column(Tile& tile, int m, float scale) {
  const TileRows& rows = *tile.rows;
  float* column = tile.scores + m;
  const F old = load(tile.max + m);
  const bool is_plain = rows.all_visible && !rows.has_bias && scale > 0;
  const F top = is_plain ? top_of_column(tile, m, broadcast(scale), old) : finish_column(tile, m, broadcast(scale), old);
  // Queries that saw nothing yet: subtracting 0 instead of -infinity keeps NaN away and leaves their weights 0.
  const F reference = max(broadcast(kLowest), top), factor = broadcast(is_plain ? scale : 1.0f);
  const F shrink = exp_nonpositive(sub(max(broadcast(kLowest), old), reference));
  F total = mul(load(tile.sum + m), shrink);
  for (int j = 0; j < rows.count; j++) {
    // Rounded as the maximum was: fused with the subtraction, large logits would come out far from it.
    const F score = rounded(mul(load(column + j * kTileQueries), factor));
    const F weight = exp_nonpositive(sub(score, reference));
    store(column + j * kTileQueries, weight);
    total = add(total, weight);
  }
  store(tile.sum + m, total);
  store(tile.max + m, top);
  float shrinks[kLanes];
  store(shrinks, shrink);
  for (int i = 0; i < kLanes; i++) {
    if (shrinks[i] == 1.0f) continue;
    float* out = tile.out + (int64_t)(m + i) * padded(tile.value_dim);
    for (int e = 0; e < padded(tile.value_dim); e += kLanes) store(out + e, mul(load(out + e), broadcast(shrinks[i])));
  }
}

// Rows of V as f32, in panels; zeros past E. Returns whether all are finite.
static bool widen_values(Tile& tile) {
  const RowKernels& kernels = kRowKernels[(int)tile.rows->value_storage];
  const int stride = padded(tile.value_dim);
  F sum = zero();
  for (int j = 0; j < tile.rows->count; j++) {
    kernels.widen(tile.row, tile.rows->values[j], tile.value_dim);
    for (int e = 0; e < stride; e += kLanes) {
      const F value = load(tile.row + e);
      store(tile.value_at(j, e), value);
      sum = fma(value, zero(), sum);
    }
  }
  return reduce_add(sum) == 0.0f;
}

// The second product where V holds infinities or NaN: a query must not meet those of rows that it does not see, and a
// weight of 0 would make them NaN.
static void add_visible_values(Tile& tile) {
  for (int m = 0; m < tile.num_queries; m++) {
    float* out = tile.out + (int64_t)m * padded(tile.value_dim);
    for (int j = 0; j < tile.rows->count; j++) {
      const float weight = tile.scores[(int64_t)j * kTileQueries + m];
      if (weight == 0.0f) continue;
      for (int e = 0; e < tile.value_dim; e++) out[e] += weight * *tile.value_at(j, e);
    }
  }
}

// out[m, e] += sum_j weights[j, m] v[j, e].
static void add_values(Tile& tile, const float* values) {
  const int stride = padded(tile.value_dim), rows = tile.rows->count;
  if (values) {
    multiply<true>(tile.scores, 1, kTileQueries, values, tile.rows->value_stride / 4, tile.num_queries, rows, stride,
                   tile.out, stride);
    return;
  }
  for (int e = 0; e < stride; e += kPanel) {
    multiply<true>(tile.scores, 1, kTileQueries, tile.value_at(0, e), tile.panel_width(e), tile.num_queries, rows,
                   tile.panel_width(e), tile.out + e, stride);
  }
}

// scores[j, m] = k[j] . q[m]. K of f32 in evenly spaced rows is used where it lies.
static void score_tile(Tile& tile, bool in_place) {
  const TileRows& rows = *tile.rows;
  const RowKernels& kernels = kRowKernels[(int)rows.key_storage];
  const int columns = padded(tile.num_queries), stride = padded(tile.head_dim);
  const float* keys = (const float*)rows.keys[0];
  int64_t row_step = rows.key_stride / 4;
  if (!in_place) {
    keys = tile.keys;
    row_step = stride;
    for (int j = 0; j < rows.count; j++) kernels.widen(tile.keys + (int64_t)j * stride, rows.keys[j], tile.head_dim);
  }
  multiply<false>(keys, row_step, 1, tile.q, kTileQueries, rows.count, tile.head_dim, columns, tile.scores, kTileQueries);
}

// The second product in f32. What some queries don't see may hold NaN, which has to be found before it meets a weight
// of 0; what all see need not be looked at, and not be copied where it is f32 in evenly spaced rows.
static void add_rows_of_tile(Tile& tile, bool in_place) {
  const bool all_visible = tile.rows->all_visible;
  if (in_place && all_visible && tile.value_dim % kLanes == 0) {
    add_values(tile, (const float*)tile.rows->values[0]);
    return;
  }
  const bool finite = widen_values(tile);
  if (finite || all_visible) add_values(tile, nullptr);
  else add_visible_values(tile);
}

// Attends to the rows collected so far and forgets them.
static void flush(const AttendArgs& args, Tile& tile) {
  TileRows& rows = *tile.rows;
  if (rows.count == 0) return rows.clear();  // a segment may have left its mask without leaving rows
  const bool is_even = rows.is_even();
  const int columns = padded(tile.num_queries);
  if (!score_on_unit(args, tile.matrix, rows, is_even, columns, tile.scores)) {
    score_tile(tile, is_even && rows.key_storage == Storage::f32);
  }
  const bool is_shaped = shapes_logits(args, rows.mask);
  if (is_shaped) shape_tile(args, tile);
  for (int m = 0; m < columns; m += kLanes) soften_column(tile, m, is_shaped ? 1.0f : args.scale);
  if (!add_on_unit(args, tile.matrix, rows, tile.scores, columns, tile.out)) {
    add_rows_of_tile(tile, is_even && rows.value_storage == Storage::f32);
  }
  rows.clear();
}

// Queries as columns [D, 64]: turned and transposed. The scale comes after the product: numbers of few bits stay so.
static void load_queries(const AttendArgs& args, Tile& tile) {
  const int columns = padded(tile.num_queries), stride = padded(args.head_dim);
  float* rows = tile.keys;  // not in use yet: [kLanes, padded D]
  for (int m = 0; m < columns; m += kLanes) {
    for (int i = 0; i < kLanes; i++) {
      // Columns past the last query repeat it; their results are dropped.
      const int n = m + i < tile.num_queries ? m + i : tile.num_queries - 1;
      load_query(args, tile.token_of(n), tile.head_of(n), rows + i * stride);
    }
    for (int d = 0; d < args.head_dim; d += kLanes) {
      F block[kLanes];
      for (int i = 0; i < kLanes; i++) block[i] = load(rows + i * stride + d);
      transpose(block);
      const int used = args.head_dim - d < kLanes ? args.head_dim - d : kLanes;
      for (int i = 0; i < used; i++) store(tile.q + (int64_t)(d + i) * kTileQueries + m, block[i]);
    }
  }
}

static void open_tile(const AttendArgs& args, Tile& tile) {
  const int columns = padded(tile.num_queries);
  load_queries(args, tile);
  for (int m = 0; m < columns; m++) {
    tile.positions[m] = args.first_position + tile.token_of(m < tile.num_queries ? m : tile.num_queries - 1);
    tile.max[m] = -__builtin_inff();
    tile.sum[m] = 0.0f;
  }
  for (int64_t e = 0; e < (int64_t)columns * padded(args.value_dim); e++) tile.out[e] = 0.0f;
  split_queries(args, tile.matrix, tile.q, columns);
}

static void close_tile(const AttendArgs& args, const Tile& tile) {
  for (int m = 0; m < tile.num_queries; m++) {
    const int64_t at = (int64_t)tile.token_of(m) * args.num_heads + tile.head_of(m);
    float* out = tile.out + (int64_t)m * padded(args.value_dim);
    // Sums are made before NaN maxima are looked at: a maximum of -infinity with a sum is a NaN behind it.
    float highest = tile.max[m], total = tile.sum[m];
    const bool hides_nan = highest == -__builtin_inff() && total != 0.0f;
    const float of_rows = hides_nan ? 1.0f : add_sink(args, tile.head_of(m), &highest, &total);
    const bool empty = highest == -__builtin_inff() && total == 0.0f;
    for (int e = 0; e < args.value_dim; e++) out[e] = empty ? 0.0f : out[e] * of_rows / total;
    store_output(args, at, out);
    if (args.lse) args.lse[at] = empty ? highest : highest + __builtin_logf(total);
  }
}

static void tile_task(const AttendArgs& args, const AttendPlan& plan, int task, char* workspace) {
  // The last tiles of a causal call are the longest: they go first, so that threads finish together.
  const int64_t parts = (int64_t)args.num_kv_heads * plan.num_parts, number = plan.num_tiles - 1 - task / parts;
  const int group = args.num_heads / args.num_kv_heads, part = task % parts % plan.num_parts;
  const int head = (int)(task % parts / plan.num_parts), first = part * plan.part_heads;
  const MatrixUnit unit;
  (void)unit;
  Tile tile;
  Tile::place(args, workspace, &tile);
  tile.width = group - first < plan.part_heads ? group - first : plan.part_heads;
  tile.first_head = head * group + first;
  tile.first_token = (int)(number * plan.tile_tokens);
  const int num_tokens = (int)min64(plan.tile_tokens, args.num_tokens - tile.first_token);
  tile.num_queries = num_tokens * tile.width;
  tile.rows->clear();
  open_tile(args, tile);
  const int32_t position = args.first_position + tile.first_token;
  const Sight sight(args, position, position + num_tokens - 1);
  for (int s = 0; s < args.num_segments; s++) {
    const Segment& segment = args.segments[s];
    if (segment.mask.values || tile.rows->mask || !tile.rows->has_storage_of(segment)) flush(args, tile);
    const int64_t length = segment.lengths[head];
    for (int64_t j = 0; j < length; j += kBlockRows) {
      tile.rows->gather(segment, head, j, min64(length, j + kBlockRows), sight);
      if (!tile.rows->has_room_for_block()) flush(args, tile);
    }
  }
  flush(args, tile);
  close_tile(args, tile);
}

}  // namespace KVASIR_ISA
}  // namespace kvasir

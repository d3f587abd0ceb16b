// Attention of many query tokens: strips of queries against blocks of rows, as two small matrix products with an online
// softmax between them.
//
//   S[j, m] = k[j] . q[m]     rows j of K are read as scalars, the columns m fill the vectors: K needs no transpose
//   softmax down the columns  (tile_softmax.h)
//   O[e, m] += v[j, e] P[j, m]
//
// A block of K and V is made ready (packed for the matrix unit, or widened to f32) once for all strips of a tile and so for
// all heads of the group.
#pragma once
#include "tile_softmax.h"

namespace kvasir {
namespace KVASIR_ISA {

static void score_strip(const AttendArgs& args, Tile& tile, const Strip& strip, const RowRange& range) {
  if (tile.matrix.score(strip.matrix, range, strip.columns(), tile.scores)) return;
  const int64_t stride = tile.key_stride;
  const Left keys = {tile.widened_keys() + range.begin * stride, stride, 1};
  multiply<false>(keys, strip.q, args.head_dim, range.end - range.begin, args.head_dim, strip.columns(),
                  tile.score_at(range.begin, 0), kTileBlock);
}

// The second product where V holds infinities or NaN: a query must not meet those of rows that it does not see, and a
// weight of 0 would make them NaN.
static void add_visible_values(const Tile& tile, const Strip& strip, const RowRange& range) {
  for (int m = 0; m < strip.num_queries(); m++) {
    for (int j = range.begin; j < range.end; j++) {
      const float weight = *tile.score_at(j, m), *value = tile.values + j * tile.value_stride;
      if (weight == 0.0f) continue;
      for (int e = 0; e < tile.value_dim; e++) *panel_at(strip.out, tile.out_rows, e, m) += weight * value[e];
    }
  }
}

// What some queries don't see may hold NaN, which has to be found before it meets a weight of 0.
static void add_strip(Tile& tile, const Strip& strip, const RowRange& range) {
  if (tile.matrix.values_packed) return tile.matrix.add(range, strip.columns(), strip.out);
  const Left values = {tile.widened_values() + range.begin * tile.value_stride, 1, tile.value_stride};
  if (!tile.values_finite && !range.all_visible) return add_visible_values(tile, strip, range);
  multiply<true>(values, tile.score_at(range.begin, 0), kTileBlock, tile.value_dim, range.end - range.begin,
                 strip.columns(), strip.out, tile.out_rows);
}

// Attends to the rows collected so far and forgets them.
static void flush(const AttendArgs& args, Tile& tile) {
  TileRows& rows = *tile.rows;
  if (rows.count == 0) return rows.clear();  // a segment may have left its mask without leaving rows
  tile.keys_widened = tile.values_widened = false;
  tile.matrix.pack_rows(args, rows);
  tile.ahead.begin(rows, args.head_dim, args.value_dim, tile.num_strips);
  const bool is_shaped = shapes_logits(args, rows.mask);
  for (int s = 0; s < tile.num_strips; s++) {
    Strip& strip = tile.strips[s];
    const RowRange range = range_of(args, rows, strip);
    if (range.begin >= range.end) continue;
    score_strip(args, tile, strip, range);
    if (is_shaped) shape_scores(args, tile, strip, range);
    soften(tile, strip, range, is_shaped ? 1.0f : args.scale);
    add_strip(tile, strip, range);
  }
  rows.clear();
}

// Queries as columns [D, 64]: turned and transposed. The scale comes after the product: numbers of few bits stay so.
static void load_queries(const AttendArgs& args, const Tile& tile, const Strip& strip) {
  const int stride = padded(args.head_dim);
  float* rows = tile.vectors;
  for (int m = 0; m < strip.columns(); m += kLanes) {
    for (int i = 0; i < kLanes; i++) {
      // Columns past the last query repeat it; their results are dropped.
      const int n = m + i < strip.num_queries() ? m + i : strip.num_queries() - 1;
      load_query(args, strip.token_of(n), strip.head_of(n), rows + i * stride);
    }
    for (int d = 0; d < args.head_dim; d += kLanes) {
      F block[kLanes];
      for (int i = 0; i < kLanes; i++) block[i] = load(rows + i * stride + d);
      transpose(block);
      const int used = args.head_dim - d < kLanes ? args.head_dim - d : kLanes;
      for (int i = 0; i < used; i++) store(panel_at(strip.q, args.head_dim, d + i, m), block[i]);
    }
  }
}

static void open_strip(const AttendArgs& args, Tile& tile, Strip& strip) {
  load_queries(args, tile, strip);
  for (int m = 0; m < strip.columns(); m++) {
    const int n = m < strip.num_queries() ? m : strip.num_queries() - 1;
    strip.positions[m] = args.first_position + strip.token_of(n);
    strip.max[m] = -__builtin_inff();
    strip.sum[m] = 0.0f;
  }
  __builtin_memset(strip.out, 0, (size_t)(tile.out_rows * kStripQueries) * 4);
  tile.matrix.pack_queries(args, strip.q, strip.columns(), &strip.matrix);
}

// The result of column m, from its weighted sum.
static void store_query(const AttendArgs& args, const Strip& strip, int m, float to_logits, float* out) {
  const int64_t at = (int64_t)strip.token_of(m) * args.num_heads + strip.head_of(m);
  // Sums are made before NaN maxima are looked at: a maximum of -infinity with a sum is a NaN behind it.
  float highest = strip.max[m] * to_logits, total = strip.sum[m];
  const bool hides_nan = highest == -__builtin_inff() && total != 0.0f;
  const float of_rows = hides_nan ? 1.0f : add_sink(args, strip.head_of(m), &highest, &total);
  const bool empty = highest == -__builtin_inff() && total == 0.0f;
  const float share = empty ? 0.0f : of_rows / total;
  for (int e = 0; e < args.value_dim; e++) out[e] = empty ? 0.0f : out[e] * share;
  store_output(args, at, out);
  if (args.lse) args.lse[at] = empty ? highest : highest + __builtin_logf(total);
}

static void close_strip(const AttendArgs& args, const Tile& tile, const Strip& strip) {
  const int stride = padded(args.value_dim);
  float* rows = tile.vectors;
  for (int m = 0; m < strip.columns(); m += kLanes) {
    for (int e = 0; e < args.value_dim; e += kLanes) {
      F block[kLanes];
      for (int i = 0; i < kLanes; i++) block[i] = load(panel_at(strip.out, tile.out_rows, e + i, m));
      transpose(block);
      for (int i = 0; i < kLanes; i++) store(rows + i * stride + e, block[i]);
    }
    for (int i = 0; i < kLanes && m + i < strip.num_queries(); i++) {
      store_query(args, strip, m + i, tile.is_raw ? args.scale : 1.0f, rows + i * stride);
    }
  }
}

// Opens the strips of a task; returns how many tokens they have.
static int open_tile(const AttendArgs& args, const AttendPlan& plan, int64_t number, int first_head, int width, Tile& tile) {
  const int64_t first = number * plan.tile_tokens, end = min64(args.num_tokens, first + plan.tile_tokens);
  const int most = kStripQueries / plan.part_heads;
  tile.num_strips = 0;
  for (int64_t token = first; token < end; token += most) {
    Strip& strip = tile.strips[tile.num_strips++];
    strip.first_head = first_head;
    strip.first_token = (int)token;
    strip.num_tokens = (int)min64(most, end - token);
    strip.width = width;
    open_strip(args, tile, strip);
  }
  return (int)(end - first);
}

constexpr int kGatheredRows = 64;  // of which the rows that no query of the tile sees are left out

static void tile_task(const AttendArgs& args, const AttendPlan& plan, int task, char* workspace) {
  // The last tiles of a causal call are the longest: they go first, so that threads finish together.
  const int64_t parts = (int64_t)args.num_kv_heads * plan.num_parts, number = plan.num_tiles - 1 - task / parts;
  const int group = args.num_heads / args.num_kv_heads, part = task % parts % plan.num_parts;
  const int head = (int)(task % parts / plan.num_parts), first = part * plan.part_heads;
  const MatrixUnit unit;
  (void)unit;
  Tile tile;
  tile.place(args, plan.tile_tokens / (kStripQueries / plan.part_heads), workspace);
  tile.choose_scale(args);
  tile.rows->clear();
  const int width = group - first < plan.part_heads ? group - first : plan.part_heads;
  const int num_tokens = open_tile(args, plan, number, head * group + first, width, tile);
  const int32_t position = args.first_position + (int32_t)(number * plan.tile_tokens);
  const Sight sight(args, position, position + num_tokens - 1);
  for (int s = 0; s < args.num_segments; s++) {
    const Segment& segment = args.segments[s];
    if (segment.mask.values || tile.rows->mask || !tile.rows->has_storage_of(segment)) flush(args, tile);
    const int64_t length = segment.lengths[head];
    for (int64_t j = 0; j < length; j += kGatheredRows) {
      tile.rows->gather(segment, head, j, min64(length, j + kGatheredRows), sight);
      if (!tile.rows->has_room_for(kGatheredRows)) flush(args, tile);
    }
  }
  flush(args, tile);
  for (int s = 0; s < tile.num_strips; s++) close_strip(args, tile, tile.strips[s]);
}

}  // namespace KVASIR_ISA
}  // namespace kvasir

// Between the two products of a tile: scores to weights, down the columns; each lane is one query, so nothing is reduced
// across lanes.
#pragma once
#include "tile.h"

namespace kvasir {
namespace KVASIR_ISA {

// Scale, soft cap, ALiBi and mask of the scores.
static void shape_scores(const AttendArgs& args, const Tile& tile, const Strip& strip, const RowRange& range) {
  const TileRows& rows = *tile.rows;
  for (int j = range.begin; j < range.end; j++) {
    for (int m = 0; m < strip.num_queries(); m += kLanes) {
      float* at = tile.score_at(j, m);
      const F score = mul(load(at), broadcast(args.scale));
      store(at, args.softcap > 0 ? soft_capped(score, args.softcap) : score);
    }
    for (int m = 0; args.alibi_slopes && m < strip.num_queries(); m++) {
      *tile.score_at(j, m) -= args.alibi_slopes[strip.head_of(m)] * distance(strip.positions[m], rows.positions[j]);
    }
    for (int m = 0; rows.mask && m < strip.num_queries(); m++) {
      float* at = tile.score_at(j, m);
      *at = masked(*at, mask_at(*rows.mask, strip.head_of(m), strip.token_of(m), rows.entries[j]));
    }
  }
}

constexpr float kLowest = -3.40282347e38f;  // the lowest finite f32: some models mask with it

// Scores times scale, bias and lifetimes for one vector of queries; returns the maximum of `top` and all of them.
static F finish_column(const Tile& tile, const Strip& strip, const RowRange& range, int m, F scale, F top) {
  const TileRows& rows = *tile.rows;
  float* column = tile.score_at(0, m);
  for (int j = range.begin; j < range.end; j++) {
    F score = load(column + j * kPanel);
    score = rows.has_bias ? fma(score, scale, broadcast(rows.bias[j])) : mul(score, scale);
    if (!range.all_visible) score = hide(score, strip.positions + m, rows.births[j], rows.deaths[j]);
    store(column + j * kPanel, score);
    top = max(top, score);
  }
  return top;
}

// The same where all rows are visible and have no bias, and the scale is positive: nothing but the maximum is wanted,
// since the scale can wait.
static F top_of_column(const Tile& tile, const RowRange& range, int m, F scale, F top) {
  const float* column = tile.score_at(0, m);
  F highest = load(column + range.begin * kPanel);
  for (int j = range.begin + 1; j < range.end; j++) highest = max(highest, load(column + j * kPanel));
  return max(top, mul(highest, scale));
}

// What was summed so far, to a new maximum.
static void shrink_column(const Strip& strip, int64_t out_rows, int m, F shrink) {
  if (!any_above(broadcast(1.0f), shrink)) return;
  float* out = panel_at(strip.out, out_rows, 0, m);
  for (int64_t e = 0; e < out_rows; e++) store(out + e * kPanel, mul(load(out + e * kPanel), shrink));
}

// Scores to weights for one vector of queries, running maximum and running sum. Weights go where the second product wants
// them: into the place of the scores, or to the matrix unit, which takes two rows at a time.
template <bool kOnUnit>
static void soften_column(Tile& tile, Strip& strip, const RowRange& range, int m, float scale) {
  float* column = tile.score_at(0, m);
  const F old = load(strip.max + m);
  const bool is_plain = range.all_visible && !tile.rows->has_bias && scale > 0;
  const F top = is_plain ? top_of_column(tile, range, m, broadcast(scale), old)
                         : finish_column(tile, strip, range, m, broadcast(scale), old);
  // Queries that saw nothing yet: subtracting 0 instead of -infinity keeps NaN away and leaves their weights 0.
  const F reference = max(broadcast(kLowest), top), factor = broadcast(is_plain ? scale : 1.0f);
  const F shrink = exp_nonpositive(sub(max(broadcast(kLowest), old), reference));
  F total = mul(load(strip.sum + m), shrink);
  const auto weight_of = [&](int j) {
    // Rounded as the maximum was: fused with the subtraction, large logits would come out far from it.
    const F score = rounded(mul(load(column + j * kPanel), factor));
    return exp_nonpositive(sub(score, reference));
  };
  for (int j = range.begin; j < range.end; j += 2) {
    const F first = weight_of(j), second = j + 1 < range.end ? weight_of(j + 1) : zero();
    total = add(add(total, first), second);
    tile.ahead.ask();
    tile.ahead.ask();
    if (kOnUnit) {
      tile.matrix.put_weights(j, m, first, second);
    } else {
      store(column + j * kPanel, first);
      if (j + 1 < range.end) store(column + (j + 1) * kPanel, second);
    }
  }
  if (kOnUnit) tile.matrix.end_weights(range.end, m);
  store(strip.sum + m, total);
  store(strip.max + m, top);
  shrink_column(strip, tile.out_rows, m, shrink);
}

static void soften(Tile& tile, Strip& strip, const RowRange& range, float scale, bool on_unit) {
  for (int m = 0; m < strip.columns(); m += kLanes) {
    if (on_unit) soften_column<true>(tile, strip, range, m, scale);
    else soften_column<false>(tile, strip, range, m, scale);
  }
}

}  // namespace KVASIR_ISA
}  // namespace kvasir

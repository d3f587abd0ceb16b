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

// Scores (logits, times scale and bias) and lifetimes for one vector of queries; returns the maximum of `top` and all of
// them.
template <bool kRaw>
static F finish_column(const Tile& tile, const Strip& strip, const RowRange& range, int m, F scale, F top) {
  const TileRows& rows = *tile.rows;
  float* column = tile.score_at(0, m);
  for (int j = range.begin; j < range.end; j++) {
    F score = load(column + j * kPanel);
    if (!kRaw) score = rows.has_bias ? fma(score, scale, broadcast(rows.bias[j])) : mul(score, scale);
    if (!range.all_visible) score = hide(score, strip.positions + m, rows.births[j], rows.deaths[j]);
    store(column + j * kPanel, score);
    top = max(top, score);
  }
  return top;
}

// The maxima of the columns of a panel, and of `tops`, where all rows are visible.
static void tops_of_panel(const Tile& tile, const RowRange& range, int m, F* tops) {
  const float* column = tile.score_at(0, m);
  for (int j = range.begin; j < range.end; j++) {
    for (int n = 0; n < kTileVectors; n++) tops[n] = max(tops[n], load(column + j * kPanel + n * kLanes));
  }
}

// What was summed so far, to a new maximum.
static void shrink_column(const Strip& strip, int64_t out_rows, int m, F shrink) {
  if (!any_above(broadcast(1.0f), shrink)) return;
  float* out = panel_at(strip.out, out_rows, 0, m);
  for (int64_t e = 0; e < out_rows; e++) store(out + e * kPanel, mul(load(out + e * kPanel), shrink));
}

// Scores to weights for one vector of queries, given their maximum, running maximum and running sum. Weights go where the
// second product wants them: into the place of the scores, or to the matrix unit, which takes two rows at a time.
template <bool kOnUnit, bool kRaw>
static void soften_column(Tile& tile, Strip& strip, const RowRange& range, int m, F top) {
  const F factor = broadcast(tile.to_powers);
  const auto power = [&](F x) { return kRaw ? exp2_nonpositive(mul(x, factor)) : exp_nonpositive(x); };
  float* column = tile.score_at(0, m);
  // Queries that saw nothing yet: subtracting 0 instead of -infinity keeps NaN away and leaves their weights 0.
  const F reference = max(broadcast(kLowest), top), old = load(strip.max + m);
  const F shrink = power(sub(max(broadcast(kLowest), old), reference));
  F total = mul(load(strip.sum + m), shrink);
  const auto weight_of = [&](int j) { return power(sub(load(column + j * kPanel), reference)); };
  for (int j = range.begin; j < range.end; j += 2) {
    if (j % 8 == 0) tile.ahead.ask();
    const F first = weight_of(j), second = j + 1 < range.end ? weight_of(j + 1) : zero();
    total = add(add(total, first), second);
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

template <bool kOnUnit, bool kRaw>
static void soften_columns(Tile& tile, Strip& strip, const RowRange& range, F scale) {
  for (int m = 0; m < strip.columns(); m += kPanel) {
    F tops[kTileVectors];
    for (int n = 0; n < kTileVectors; n++) tops[n] = load(strip.max + m + n * kLanes);
    if (kRaw && range.all_visible) tops_of_panel(tile, range, m, tops);
    for (int n = 0; n < kTileVectors && m + n * kLanes < strip.columns(); n++) {
      const int at = m + n * kLanes;
      if (!kRaw || !range.all_visible) tops[n] = finish_column<kRaw>(tile, strip, range, at, scale, tops[n]);
      soften_column<kOnUnit, kRaw>(tile, strip, range, at, tops[n]);
    }
  }
}

// `scale`: what scores still have to be multiplied by to be logits.
static void soften(Tile& tile, Strip& strip, const RowRange& range, float scale) {
  const auto of_raw = tile.matrix.values_packed ? soften_columns<true, true> : soften_columns<false, true>;
  const auto of_logits = tile.matrix.values_packed ? soften_columns<true, false> : soften_columns<false, false>;
  (tile.is_raw ? of_raw : of_logits)(tile, strip, range, broadcast(scale));
}

}  // namespace KVASIR_ISA
}  // namespace kvasir

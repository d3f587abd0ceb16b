// The inner loops over stored rows: products with a few query heads, weighted sums, and widening to f32, the same for all
// storage types but for how a vector of a row is read.
#pragma once
#include "ask_ahead.h"

namespace kvasir {
namespace KVASIR_ISA {

using DecodeRows = VisibleRows<kBlockRows, false>;

// Queries of a few heads, as floats [padded D] or as their kernels' `pack` has made them, so many bytes apart.
struct PackedQuery {
  const char* at;
  int64_t stride;
};

// Whether rows of integers may meet queries as integers, or those of int4 alone, and whether eight queries are arranged to
// meet rows together.
#if defined(__AVX512VNNI__)
constexpr bool kHasByteProducts = true;
#else
constexpr bool kHasByteProducts = false;
#endif
constexpr bool kHasNibbleProducts = kLanes == 8;
#if defined(__AVX512F__)
constexpr bool kArrangesQueries = true;
#else
constexpr bool kArrangesQueries = false;
#endif
// Room for one packed query, for every storage.
static inline int64_t packed_bytes(int head_dim) {
  if (kHasNibbleProducts) return ((int64_t)head_dim + 63) / 64 * 288 + 32;  // three terms of each number, and their sums
  if (!kHasByteProducts) return kArrangesQueries ? 4 * padded(head_dim) : 0;
  return ((int64_t)head_dim + 127) / 128 * 128 * 12 + 64;  // three terms of each number, four times
}

}  // namespace KVASIR_ISA
}  // namespace kvasir

#if defined(__AVX512F__)
#include "score_together.h"
#elif defined(__AVX2__)
#include "threes.h"
#endif

namespace kvasir {
namespace KVASIR_ISA {

// What eight heads call for each half of them takes up to 5 per cent more time apart from its callers, where registers are few.
#if defined(__AVX2__) && !defined(__AVX512F__)
#define KVASIR_JOINED inline __attribute__((always_inline))
#else
#define KVASIR_JOINED
#endif

// Where there are 16 registers, eight sums leave too few for as many vectors beside them: one after the other meets what is
// fewer, the queries or weights of the heads, and no sum waits in memory.
template <typename X>
constexpr bool meets_one_by_one() {
  return kLanes == 8 && is_quantized_type<X>();
}

// sums[g, i] = lanes of q[g] . k[i] for kGroup query heads and kRows rows; `ahead`: rows of V to ask for.
template <typename X, int kGroup, int kRows, bool kAhead>
KVASIR_INLINE void multiply_rows(const char* const* keys, const char* const* ahead, const float* q, int head_dim,
                                 RowWalk& in_order, F* sums) {
  F sum[kGroup][kRows];
  const int q_stride = padded(head_dim), whole = head_dim / kLanes;
  for (int g = 0; g < kGroup; g++) {
    for (int i = 0; i < kRows; i++) sum[g][i] = zero();
  }
  const auto add_products = [&](const F(&k)[kRows], int n) {
    for (int g = 0; g < kGroup; g++) {
      // In a register: read anew for each row, queries would take as many loads as there are products.
      const F query = rounded(load(q + g * q_stride + n * kLanes));
      for (int i = 0; i < kRows; i++) sum[g][i] = fma(k[i], query, sum[g][i]);
    }
  };
  constexpr bool kWalks = kAhead && kAsksByLoading;
  constexpr int kVectorsPerLine = 64 / (kLanes * (int)sizeof(X));
  LineWalk<kRows, kWalks> walk(ahead, head_dim * (int)sizeof(X));
  F k[kRows];
  for (int n = 0; n < whole; n++) {
    if (kWalks && n % kVectorsPerLine == 0) walk.ask();
    if (kAhead && asks_in_order<X>()) in_order.pass(kRows);
    for (int i = 0; kAhead && !kWalks && !asks_in_order<X>() && i < kRows; i++) prefetch_vector<X>(ahead[i], n);
    if constexpr (meets_one_by_one<X>() && kRows > kGroup) {
      F query[kGroup];
      for (int g = 0; g < kGroup; g++) query[g] = rounded(load(q + g * q_stride + n * kLanes));
      each_vector_of_rows<kRows>((const X*)nullptr, keys, n, head_dim, [&](int i, F row) {
        for (int g = 0; g < kGroup; g++) sum[g][i] = fma(row, query[g], sum[g][i]);
      });
    } else {
      vector_of_rows<kRows>((const X*)nullptr, keys, n, head_dim, k);
      add_products(k, n);
    }
  }
  if (whole * kLanes < head_dim) {
    for (int i = 0; i < kRows; i++) k[i] = part_vector((const X*)keys[i], whole, head_dim);
    add_products(k, whole);
  }
  for (int n = 0; n < kGroup * kRows; n++) sums[n] = sum[n / kRows][n % kRows];
}

// Scales of the rows of a block, zeros past them.
template <typename X>
static inline void scales_of_rows(const char* const* rows, int count, int dim, float* scales) {
  for (int j = 0; j < count; j++) scales[j] = row_scale<X>(rows[j], dim);
  for (int j = count; j < kBlockRows; j++) scales[j] = 0.0f;
}

// out[g, j] = numbers[g, j] times the scale of row j.
template <typename X>
static inline void scale_rows(const char* const* rows, int count, int dim, int group, const float* numbers, float* out) {
  float scales[kBlockRows];
  scales_of_rows<X>(rows, count, dim, scales);
  for (int g = 0; g < group; g++) {
    for (int j = 0; j < kBlockRows; j += kLanes) {
      const int at = g * kBlockRows + j;
      store(out + at, mul(load(numbers + at), load(scales + j)));
    }
  }
}

// scores[g, j] = q[g] . k[j] for kGroup query heads. A few rows at a time, so that kAccumulators products are under way;
// the sums across lanes of kLanes or more of them are made together. Rows past the last are those of the last again;
// their scores mean nothing.
template <typename X, int kGroup, bool kAhead>
static void score_rows_apart(const DecodeRows& rows, const float* q, int head_dim, float* scores) {
  constexpr int kAtOnce = kAccumulators / kGroup > 8 ? 8 : kAccumulators / kGroup;
  constexpr int kRows = kAtOnce * kGroup < kLanes ? kLanes / kGroup : kAtOnce;
  static_assert(kBlockRows % kRows == 0, "the last group must not write past the block");
  static_assert(kAccumulators % kRows == 0, "rows are repeated up to a multiple of kAccumulators");
  static_assert(kRows == kAtOnce || kGroup == 1, "sums of several batches lie one after the other for one head only");
  RowWalk in_order = row_walk<X>(rows.values, rows.count, head_dim);
  for (int j = 0; j < rows.count; j += kRows) {
    F sum[kGroup * kRows];
    for (int i = 0; i < kRows; i += kAtOnce) {
      multiply_rows<X, kGroup, kAtOnce, kAhead>(rows.keys + j + i, rows.values + j + i, q, head_dim, in_order, sum + i);
    }
    float total[kGroup * kRows];
    for (int at = 0; at < kGroup * kRows; at += kLanes) store(total + at, reduce_each(sum + at));
    for (int g = 0; g < kGroup; g++) __builtin_memcpy(scores + g * kBlockRows + j, total + g * kRows, kRows * 4);
  }
}

template <typename X, int kGroup, bool kAhead>
static void score_rows(const DecodeRows& rows, const PackedQuery& query, int head_dim, float* scores) {
  const float* q = (const float*)query.at;
#if defined(__AVX512F__)
  if constexpr (kGroup == 8) score_together<X, kAhead>(rows, q, head_dim, scores);
  else
#elif defined(__AVX2__)
  if constexpr (kGroup == 8 && sizeof(X) == 2) {
    // Widening 16 bits anew for the other four heads costs less than keeping what was widened.
    score_threes<X, 4, kAhead>(rows, q, head_dim, scores);
    score_threes<X, 4, false>(rows, q + 4 * padded(head_dim), head_dim, scores + 4 * kBlockRows);
  } else if constexpr (goes_by_threes<X, kGroup>()) {
    score_threes<X, kGroup, kAhead>(rows, q, head_dim, scores);
  } else
#endif
    score_rows_apart<X, kGroup, kAhead>(rows, q, head_dim, scores);
  if constexpr (is_quantized_type<X>()) scale_rows<X>(rows.keys, rows.count, head_dim, kGroup, scores, scores);
}

// out[g, e ...] += sum_j weights[g, j] v[j, e ...] for kVectors vectors from element e on; kPart: a partial one. The same
// elements of the rows `ahead` are asked for.
template <typename X, int kGroup, int kVectors, bool kAhead, bool kPart = false>
static KVASIR_JOINED void add_vectors(const DecodeRows& rows, const char* const* ahead, RowWalk& in_order,
                                      const float* weights, float* out, int out_stride, int e, int value_dim) {
  F sum[kGroup * kVectors];
  for (int g = 0; g < kGroup; g++) {
    for (int n = 0; n < kVectors; n++) sum[g * kVectors + n] = load(out + g * out_stride + e + n * kLanes);
  }
  for (int j = 0; j < rows.count; j++) {
    F v[kVectors];
    if (kAhead && asks_in_order<X>()) in_order.pass(kVectors);
    for (int n = 0; kAhead && !asks_in_order<X>() && n < kVectors; n++) prefetch_vector<X>(ahead[j], e / kLanes + n);
    const X* value = (const X*)rows.values[j];
    if constexpr (meets_one_by_one<X>() && kVectors > kGroup) {
      F weight[kGroup];
      for (int g = 0; g < kGroup; g++) weight[g] = broadcast(weights[g * kBlockRows + j]);
      each_vector_of_row<kVectors>(value, e / kLanes, value_dim, [&](int n, F vector) {
        for (int g = 0; g < kGroup; g++) sum[g * kVectors + n] = fma(weight[g], vector, sum[g * kVectors + n]);
      });
      continue;
    }
    if (kPart) v[0] = part_vector(value, e / kLanes, value_dim);
    else vectors_of_row<kVectors>(value, e / kLanes, value_dim, v);
    for (int g = 0; g < kGroup; g++) {
      const F weight = broadcast(weights[g * kBlockRows + j]);
      for (int n = 0; n < kVectors; n++) sum[g * kVectors + n] = fma(weight, v[n], sum[g * kVectors + n]);
    }
  }
  for (int g = 0; g < kGroup; g++) {
    for (int n = 0; n < kVectors; n++) store(out + g * out_stride + e + n * kLanes, sum[g * kVectors + n]);
  }
}

// out[g] += sum_j weights[g, j] v[j] for kGroup query heads, without scales of rows.
template <typename X, int kGroup, bool kAhead>
static KVASIR_JOINED void add_codes(const DecodeRows& rows, const char* const* ahead, const float* weights, float* out,
                                    int value_dim) {
  const int stride = padded(value_dim), whole = value_dim / kLanes * kLanes;
  if constexpr (kLanes == 8 && kGroup == 8) {
    add_codes<X, 4, kAhead>(rows, ahead, weights, out, value_dim);
    add_codes<X, 4, false>(rows, ahead, weights + 4 * kBlockRows, out + 4 * stride, value_dim);
    return;
  }
  // Three vectors for eight heads of the 32 registers of AVX-512 and for four heads of the 16 of AVX2.
  constexpr bool kThrees = (kLanes == 16 && kGroup == 8) || (kLanes == 8 && kGroup == 4 && !is_quantized_type<X>());
  constexpr int kFit = kThrees ? 3 : kAccumulators / kGroup, kMost = kFit > 8 ? 8 : kFit;
  RowWalk in_order = row_walk<X>(ahead, rows.count, value_dim);
  int e = 0;
  for (; e + kMost * kLanes <= whole; e += kMost * kLanes) {
    if (kLanes == 8 && kThrees && whole - e == 4 * kLanes) break;  // two and two take less time than three and one
    add_vectors<X, kGroup, kMost, kAhead>(rows, ahead, in_order, weights, out, stride, e, value_dim);
  }
  if constexpr (kMost > 4) {
    for (; e + 4 * kLanes <= whole; e += 4 * kLanes) {
      add_vectors<X, kGroup, 4, kAhead>(rows, ahead, in_order, weights, out, stride, e, value_dim);
    }
  }
  if constexpr (kMost == 3) {
    for (; e + 2 * kLanes <= whole; e += 2 * kLanes) {
      add_vectors<X, kGroup, 2, kAhead>(rows, ahead, in_order, weights, out, stride, e, value_dim);
    }
  }
  for (; e < whole; e += kLanes) add_vectors<X, kGroup, 1, kAhead>(rows, ahead, in_order, weights, out, stride, e, value_dim);
  if (whole < value_dim) add_vectors<X, kGroup, 1, false, true>(rows, ahead, in_order, weights, out, stride, whole, value_dim);
}

template <typename X, int kGroup, bool kAhead>
static void add_rows(const DecodeRows& rows, const char* const* ahead, const float* weights, float* out,
                     int value_dim) {
  float scaled[kGroup * kBlockRows];
  if constexpr (is_quantized_type<X>()) {
    scale_rows<X>(rows.values, rows.count, value_dim, kGroup, weights, scaled);
    weights = scaled;
  }
  add_codes<X, kGroup, kAhead>(rows, ahead, weights, out, value_dim);
}

// A row as f32 without its scale, which is returned, zeros up to a whole vector: codes are exact in few bits.
template <typename X>
static float widen_codes(float* to, const char* from, int dim) {
  const int whole = dim / kLanes;
  for (int n = 0; n < whole; n++) store(to + n * kLanes, whole_vector((const X*)from, n, dim));
  if (whole * kLanes < dim) store(to + whole * kLanes, part_vector((const X*)from, whole, dim));
  if constexpr (is_quantized_type<X>()) return row_scale<X>(from, dim);
  return 1.0f;
}

// A row as f32, zeros up to a whole vector.
template <typename X>
static void widen_any_row(float* to, const char* from, int dim) {
  const float scale = widen_codes<X>(to, from, dim);
  if (!is_quantized_type<X>()) return;
  for (int d = 0; d < dim; d += kLanes) store(to + d, mul(load(to + d), broadcast(scale)));
}

}  // namespace KVASIR_ISA
}  // namespace kvasir

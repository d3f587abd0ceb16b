// Products of stored rows with the queries of eight heads at once, on registers of 16 lanes. A lane is a dim of a head: a
// register of queries holds the same four dims of four heads, and four dims of a row are broadcast to meet it. So a row
// has two accumulators, and the sums across their lanes are short. Rows are widened once into a piece of the first-level
// cache: broadcasting from there costs no more than loading does. (For four heads it is no gain.)
#pragma once
#include "rows.h"

namespace kvasir {
namespace KVASIR_ISA {

// Queries of eight heads [8, padded D] to [padded D / 4, 8, 4].
static void arrange(const float* q, int head_dim, char* to) {
  const int dims = padded(head_dim);
  for (int d = 0; d < dims; d += 4) {
    for (int g = 0; g < 8; g++) __builtin_memcpy(to + 4 * (d * 8 + g * 4), q + g * dims + d, 16);
  }
}

constexpr int kTogether = 8, kWidenedDims = 128;  // rows at a time, and dims

// Vectors [first, first + count) of a row, without its scale.
template <typename X>
static inline void widen_vectors(float* to, const X* row, int first, int count, int head_dim) {
  const int whole = head_dim / kLanes - first, full = whole < count ? whole : count;
  for (int n = 0; n < full; n++) store(to + n * kLanes, whole_vector(row, first + n, head_dim));
  if (full < count) store(to + full * kLanes, part_vector(row, first + full, head_dim));
}

// sums[half, i] += lanes of q[half] . widened[i] for `count` vectors of the rows. Before each, so many rows from `ahead` on
// are asked for, up to `last`.
template <bool kAhead>
KVASIR_INLINE void multiply_widened(const float* widened, const float* q, int count, const char* const* ahead,
                                    const char* const* last, int rows_ahead, int row_bytes, F (&sums)[2 * kTogether]) {
  for (int n = 0; n < count; n++) {
    for (int i = 0; kAhead && i < rows_ahead && ahead < last; i++) {
      const char* row = *ahead++;
      for (int at = 0; at < row_bytes; at += 64) __builtin_prefetch(row + at, 0, 2);
    }
    for (int d = 0; d < kLanes; d += 4, q += 2 * kLanes) {
      const F low = load(q), high = load(q + kLanes);
#pragma GCC unroll 8
      for (int i = 0; i < kTogether; i++) {
        const F k = _mm512_broadcast_f32x4(_mm_load_ps(widened + i * kWidenedDims + n * kLanes + d));
        sums[i] = fma(k, low, sums[i]);
        sums[kTogether + i] = fma(k, high, sums[kTogether + i]);
      }
    }
  }
}

// Sums over the dims of each head and row, to scores[g, first row ...].
static inline void store_sums(const F* sums, float* scores) {
  F quads[4];
  for (int n = 0; n < 4; n++) quads[n] = sum_quarters(sums + 4 * n);
  turn_quarters(quads);
  for (int g = 0; g < 4; g++) {
    _mm256_storeu_ps(scores + g * kBlockRows, _mm512_castps512_ps256(quads[g]));
    _mm256_storeu_ps(scores + (4 + g) * kBlockRows, _mm512_extractf32x8_ps(quads[g], 1));
  }
}

// scores[g, j] = q[g] . k[j] without scales of rows. Rows past the last are those of the last again.
template <typename X, bool kAhead>
static void score_together(const VisibleRows<kBlockRows, false>& rows, const float* q, int head_dim, float* scores) {
  constexpr int kVectors = kWidenedDims / kLanes;
  alignas(64) float widened[kTogether][kWidenedDims];
  const int vectors = vectors_of(head_dim), row_bytes = head_dim * (int)sizeof(X);
  const int rows_ahead = (kTogether + vectors - 1) / vectors;
  for (int j = 0; j < rows.count; j += kTogether) {
    F sums[2 * kTogether];
    for (int i = 0; i < 2 * kTogether; i++) sums[i] = zero();
    for (int first = 0; first < vectors; first += kVectors) {
      const int count = vectors - first < kVectors ? vectors - first : kVectors;
      for (int i = 0; i < kTogether; i++) widen_vectors(widened[i], (const X*)rows.keys[j + i], first, count, head_dim);
      multiply_widened<kAhead>(widened[0], q + first * 8 * kLanes, count, rows.values + j + first * rows_ahead,
                               rows.values + j + kTogether, rows_ahead, row_bytes, sums);
    }
    store_sums(sums, scores + j);
  }
}

}  // namespace KVASIR_ISA
}  // namespace kvasir

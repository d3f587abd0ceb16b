// Four query heads and three rows at a time: twelve sums, as many as sixteen registers have room for beside what is
// multiplied. A multiply-add takes four cycles or five and two begin in each, so with eight sums every delay is one of all.
#pragma once
#include "ask_ahead.h"

namespace kvasir {
namespace KVASIR_ISA {

constexpr int kThree = 3, kThreeHeads = 4, kThreeDims = 128;  // of rows, of heads, of dims that are widened together

// Widening rows of floats costs so little that four heads gain by it too.
template <typename X, int kGroup>
constexpr bool goes_by_threes() {
  return kGroup == 2 * kThreeHeads || (kGroup == kThreeHeads && !is_quantized_type<X>());
}

// sums[g, i] += lanes of q[g] . k[i] for vectors [from, to), where `take` puts vector n of the rows into k.
template <typename Take>
KVASIR_INLINE void multiply_threes(const Take& take, const float* q, int q_stride, int from, int to, F* sums) {
  F sum[kThreeHeads * kThree];  // in registers
  for (int i = 0; i < kThreeHeads * kThree; i++) sum[i] = sums[i];
  for (int n = from; n < to; n++) {
    F k[kThree];
    take(n, k);
    for (int g = 0; g < kThreeHeads; g++) {
      const F query = rounded(load(q + g * q_stride + n * kLanes));
      for (int i = 0; i < kThree; i++) sum[g * kThree + i] = fma(k[i], query, sum[g * kThree + i]);
    }
  }
  for (int i = 0; i < kThreeHeads * kThree; i++) sums[i] = sum[i];
}

// Sums across lanes, to scores[g, 0 to 2]; `has_room`: a fourth number may be written too.
static inline void store_threes(const F* sums, bool has_room, float* scores) {
  for (int g = 0; g < kThreeHeads; g += 2) {
    const F *a = sums + g * kThree, *b = a + kThree;
    const F each[kLanes] = {a[0], a[1], a[2], zero(), b[0], b[1], b[2], zero()};
    const F totals = reduce_each(each);
    const __m128 of_two[2] = {_mm256_castps256_ps128(totals), _mm256_extractf128_ps(totals, 1)};
    for (int h = 0; h < 2; h++) {
      float* to = scores + (g + h) * kBlockRows;
      if (has_room) {
        _mm_storeu_ps(to, of_two[h]);
      } else {
        _mm_storel_pi((__m64*)to, of_two[h]);
        _mm_store_ss(to + 2, _mm_movehl_ps(of_two[h], of_two[h]));
      }
    }
  }
}

// scores[g, j] = q[g] . k[j] without scales of rows, for four heads or eight, which widen rows once.
template <typename X, int kGroup, bool kAhead>
static void score_threes(const VisibleRows<kBlockRows, false>& rows, const float* q, int head_dim, float* scores) {
  constexpr int kHalves = kGroup / kThreeHeads, kVectors = kThreeDims / kLanes;
  constexpr bool kKeeps = kHalves > 1 && !__is_same(X, float);
  alignas(64) float widened[kThree][kThreeDims];
  const int q_stride = padded(head_dim), whole = head_dim / kLanes, vectors = vectors_of(head_dim);
  const int end = (rows.count + kAccumulators - 1) / kAccumulators * kAccumulators;  // rows are repeated up to there
  RowWalk in_order = row_walk<X>(rows.values, rows.count, head_dim);
  for (int batch = 0; batch < rows.count; batch += kThree) {
    const int j = batch + kThree <= end ? batch : end - kThree;
    const char* const* keys = rows.keys + j;
    F sums[kHalves][kThreeHeads * kThree];
    for (int h = 0; h < kHalves; h++) {
      for (F& sum : sums[h]) sum = zero();
    }
    for (int first = 0; first < vectors; first += kVectors) {
      const int last = first + kVectors < vectors ? first + kVectors : vectors, full = last < whole ? last : whole;
      const auto keep = [&](int n, const F(&k)[kThree]) {
        for (int i = 0; kKeeps && i < kThree; i++) store(widened[i] + (n - first) * kLanes, k[i]);
      };
      const auto take = [&](int n, F(&k)[kThree]) {
        if (kAhead && asks_in_order<X>()) in_order.pass(kThree);
        for (int i = 0; kAhead && !asks_in_order<X>() && i < kThree; i++) prefetch_vector<X>(rows.values[j + i], n);
        vector_of_rows<kThree>((const X*)nullptr, keys, n, head_dim, k);
        keep(n, k);
      };
      const auto take_part = [&](int n, F(&k)[kThree]) {
        for (int i = 0; i < kThree; i++) k[i] = part_vector((const X*)keys[i], n, head_dim);
        keep(n, k);
      };
      const auto take_again = [&](int n, F(&k)[kThree]) {
        for (int i = 0; i < kThree; i++)
          k[i] = kKeeps ? load(widened[i] + (n - first) * kLanes) : load((const float*)keys[i] + n * kLanes);
      };
      multiply_threes(take, q, q_stride, first, full, sums[0]);
      if (full < last) multiply_threes(take_part, q, q_stride, full, last, sums[0]);
      if constexpr (kHalves > 1) {
        const float* others = q + kThreeHeads * q_stride;
        multiply_threes(take_again, others, q_stride, first, kKeeps ? last : full, sums[1]);
        if (!kKeeps && full < last) multiply_threes(take_part, others, q_stride, full, last, sums[1]);
      }
    }
    for (int h = 0; h < kHalves; h++) store_threes(sums[h], j + kThree < kBlockRows, scores + h * kThreeHeads * kBlockRows + j);
  }
}

}  // namespace KVASIR_ISA
}  // namespace kvasir

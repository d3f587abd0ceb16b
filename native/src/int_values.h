// Weighted sums of rows of int8 and int4 by products of bytes: those of four rows are interleaved, so that a lane is a dim
// and sums four rows; weights are broadcast.
#pragma once
#include "int_products.h"

namespace kvasir {
namespace KVASIR_ISA {

// Weights of a block for one head as integers: value = step * (term 0 * 2^16 + term 1 * 2^8 + term 2).
struct IntWeights {
  alignas(64) int32_t terms[kBlockRows / 4][4];  // of four rows each, as bytes; the last of the four is 0
  alignas(16) int32_t totals[4];
  float step;
};

// Weights times scales. Returns false where they can't be: NaN, infinite, negative, or so small that their scale would be
// infinite.
KVASIR_INLINE bool split_block(const float* weights, const F* scales, IntWeights* out) {
  constexpr int kSpoiled = 0xd9;  // classes: NaN, infinite, negative
  F each[kBlockRows / kLanes], most = zero();
  unsigned spoiled = 0;
  KVASIR_UNROLL
  for (int n = 0; n < kBlockRows / kLanes; n++) {
    each[n] = mul(load(weights + n * kLanes), scales[n]);
    most = max(most, each[n]);
    spoiled |= _mm512_fpclass_ps_mask(each[n], kSpoiled);
  }
  const float top = _mm512_reduce_max_ps(most);
  if (spoiled || (top > 0.0f && top < 1e-30f)) return false;
  const F factor = broadcast(top > 0.0f ? kWeightSteps / top : 0.0f);
  Bytes totals = _mm512_setzero_si512();
  KVASIR_UNROLL
  for (int n = 0; n < kBlockRows / kLanes; n++) {
    const Bytes terms = bytes_by_place(_mm512_cvtps_epi32(mul(each[n], factor)));
    _mm512_store_si512(out->terms[4 * n], terms);
    totals = dot(totals, terms, _mm512_set1_epi8(1));
  }
  const __m256i half = _mm256_add_epi32(_mm512_castsi512_si256(totals), _mm512_extracti64x4_epi64(totals, 1));
  const __m128i total = _mm_add_epi32(_mm256_castsi256_si128(half), _mm256_extracti128_si256(half, 1));
  _mm_store_si128((__m128i*)out->totals, total);
  out->step = top / kWeightSteps;
  return true;
}

// The bytes of four registers side by side: register n holds those of bytes 4 n to 4 n + 3 of each 16.
KVASIR_INLINE void interleave(Bytes* x) {
  const Bytes a = _mm512_unpacklo_epi8(x[0], x[1]), b = _mm512_unpackhi_epi8(x[0], x[1]);
  const Bytes c = _mm512_unpacklo_epi8(x[2], x[3]), d = _mm512_unpackhi_epi8(x[2], x[3]);
  x[0] = _mm512_unpacklo_epi16(a, c);
  x[1] = _mm512_unpackhi_epi16(a, c);
  x[2] = _mm512_unpacklo_epi16(b, d);
  x[3] = _mm512_unpackhi_epi16(b, d);
}

// out[e] += weights . codes for 64 dims: `quads` of rows, each as four vectors of interleaved bytes, which `read` yields.
template <int kBias, typename Read>
KVASIR_INLINE void add_quads(const Read& read, int num_quads, const IntWeights& weights, float* out, int count) {
  Bytes sums[3][4];
  for (int t = 0; t < 3; t++) {
    for (int n = 0; n < 4; n++) sums[t][n] = _mm512_set1_epi32(-kBias * weights.totals[t]);
  }
  for (int q = 0; q < num_quads; q++) {
    Bytes codes[4];
    read(q, codes);
    KVASIR_UNROLL
    for (int t = 0; t < 3; t++) {
      const Bytes weight = _mm512_set1_epi32(weights.terms[q][t]);
      KVASIR_UNROLL
      for (int n = 0; n < 4; n++) sums[t][n] = dot(sums[t][n], weight, codes[n]);
    }
  }
  F x[4];
  KVASIR_UNROLL
  for (int n = 0; n < 4; n++) x[n] = joined(sums[0][n], sums[1][n], sums[2][n]);
  turn_quarters(x);
  add_to_row(out, x, broadcast(weights.step), count);
}

// Returns false where the weights are such that it has to be done otherwise; nothing has happened then.
template <typename X, int kGroup, bool kAhead>
static bool add_ints(const VisibleRows<kBlockRows, false>& rows, const char* const* ahead, const float* weights, float* out,
                     int dim) {
  F scales[kBlockRows / kLanes];
  block_scales<X>(rows.values, rows.count, dim, scales);
  IntWeights split[kGroup];
  for (int g = 0; g < kGroup; g++) {
    if (!split_block(weights + g * kBlockRows, scales, &split[g])) return false;
  }
  const int bytes = code_bytes<X>(dim), quads = (rows.count + 3) / 4, stride = padded(dim);
  constexpr int kBias = kHasHalves<X> ? kCodeBias<X> : 0;  // int8 is signed as it lies
  for (int at = 0; at < bytes; at += kChunk) {
    // The first head interleaves the rows for the others. Each pass asks for a part of the rows ahead: what can be under way
    // at once is limited.
    Bytes low[kBlockRows / 4][4], high[kBlockRows / 4][4];
    constexpr int kPasses = kGroup * (kHasHalves<X> ? 2 : 1);
    const bool is_last = at + kChunk >= bytes;
    const auto ask = [&](int q, int pass) __attribute__((always_inline)) {
      if (!kAhead || q % kPasses != pass) return;
      prefetch_chunks<4>(ahead + 4 * q, at);
      if (is_last) prefetch_chunks<4>(ahead + 4 * q, scale_offset(X::kStorage, dim));
    };
    const auto read_rows = [&](int q, Bytes* codes) __attribute__((always_inline)) {
      ask(q, 0);
      KVASIR_UNROLL
      for (int i = 0; i < 4; i++) codes[i] = load_chunk(rows.values[4 * q + i], at, bytes);
      interleave(codes);
      KVASIR_UNROLL
      for (int n = 0; n < 4; n++) {
        if (kHasHalves<X>) {
          high[q][n] = high_nibbles(codes[n]);
          codes[n] = low_nibbles(codes[n]);
        }
        if (kGroup > 1) low[q][n] = codes[n];
      }
    };
    for (int g = 0; g < kGroup; g++) {
      float* row = out + g * stride + at;
      const auto read_low = [&](int q, Bytes* codes) __attribute__((always_inline)) {
        ask(q, g);
        __builtin_memcpy(codes, low[q], sizeof low[q]);
      };
      const auto read_high = [&](int q, Bytes* codes) __attribute__((always_inline)) {
        ask(q, kGroup + g);
        __builtin_memcpy(codes, high[q], sizeof high[q]);
      };
      if (g == 0) add_quads<kBias>(read_rows, quads, split[g], row, bytes - at);
      else add_quads<kBias>(read_low, quads, split[g], row, bytes - at);
      if (kHasHalves<X>) add_quads<kBias>(read_high, quads, split[g], row + bytes, dim - bytes - at);
    }
  }
  return true;
}

}  // namespace KVASIR_ISA
}  // namespace kvasir

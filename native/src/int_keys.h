// Scores of rows of int8 and int4 by products of bytes: four dims of each of four rows lie side by side in each quarter of a
// register, so that what is left to be added up across lanes are four quarters. Queries are packed to match, each of their
// fours four times.
#pragma once
#include "int_products.h"

namespace kvasir {
namespace KVASIR_ISA {

// A packed query: [vectors, 4, 3, 64] bytes, then what the sums begin with and the scale. A vector is 64 dims that meet one
// register of codes; i of 4 holds of each 16 dims those from 4 i on, four times; 3 are the terms. Sums wrap around: they are
// right as long as those of codes and terms fit 32 bits, which they do up to 131,072 dims.
struct IntQuery {
  int32_t begin[3];
  float scale;
};
constexpr int kPackedVector = 4 * 3 * kChunk;
template <typename X>
static inline int query_vectors(int dim) {
  return (kHasHalves<X> ? 2 : 1) * chunks_of(code_bytes<X>(dim));
}

// Up to 16 of the integers that a query becomes, as `quarter` of a packed vector. sums[t] gets four times each of the terms.
KVASIR_INLINE void pack_quarter(Bytes numbers, char* to, Bytes (&sums)[3]) {
  const Bytes terms = signed_bytes(numbers);
  KVASIR_UNROLL
  for (int t = 0; t < 3; t++) {
    const Bytes order = _mm512_set1_epi32((2 - t) * 0x01010101 + 0x0c080400);
    const Bytes fours = _mm512_shuffle_epi8(terms, order);
    sums[t] = dot(sums[t], _mm512_set1_epi8(1), fours);
    char* at = to + t * kChunk;
    _mm_storeu_si128((__m128i*)at, _mm512_castsi512_si128(fours));
    _mm_storeu_si128((__m128i*)(at + 3 * kChunk), _mm512_extracti32x4_epi32(fours, 1));
    _mm_storeu_si128((__m128i*)(at + 6 * kChunk), _mm512_extracti32x4_epi32(fours, 2));
    _mm_storeu_si128((__m128i*)(at + 9 * kChunk), _mm512_extracti32x4_epi32(fours, 3));
  }
}

// Hands the integers that a query becomes to `visit`, 16 at a time, with the vector of codes and the quarter of it that they
// meet. Returns their scale, NaN where a number is none: no integer means anything then.
template <typename X, typename Visit>
KVASIR_INLINE float each_quarter(const float* q, int dim, const Visit& visit) {
  constexpr int kHalves = kHasHalves<X> ? 2 : 1;  // a byte of int4 holds dims d and d + half
  const int half = code_bytes<X>(dim), vectors = query_vectors<X>(dim);
  const float largest = largest_of(q, dim), scale = largest / kQuerySteps;
  const F factor = broadcast(scale > 0.0f && largest < __builtin_inff() ? kQuerySteps / largest : 0.0f);
  for (int v = 0; v < vectors; v++) {
    const int first = v % kHalves * half, end = v % kHalves ? dim : half;
    for (int quarter = 0; quarter < 4; quarter++) {
      const int d = first + v / kHalves * kChunk + quarter * kLanes, left = end - d;
      const __mmask16 used = left >= kLanes ? 0xffff : left > 0 ? (__mmask16)((1u << left) - 1) : 0;
      visit(_mm512_cvtps_epi32(mul(_mm512_maskz_loadu_ps(used, q + d), factor)), v, quarter);
    }
  }
  return scale;
}

template <typename X>
static void pack_ints(const float* q, int dim, char* packed) {
  Bytes sums[3] = {_mm512_setzero_si512(), _mm512_setzero_si512(), _mm512_setzero_si512()};
  IntQuery tail;
  tail.scale = each_quarter<X>(q, dim, [&](Bytes numbers, int v, int quarter) __attribute__((always_inline)) {
    pack_quarter(numbers, packed + (int64_t)v * kPackedVector + quarter * 16, sums);
  });
  for (int t = 0; t < 3; t++) tail.begin[t] = -kCodeBias<X> * (_mm512_reduce_add_epi32(sums[t]) / 4);
  __builtin_memcpy(packed + (int64_t)query_vectors<X>(dim) * kPackedVector, &tail, sizeof tail);
}

// Fours of codes of four rows: vector i holds of each 16 bytes those from 4 i on, row after row.
KVASIR_INLINE void turn_fours(const char* const* rows, int at, int bytes, Bytes* out) {
  KVASIR_UNROLL
  for (int i = 0; i < 4; i++) out[i] = load_chunk(rows[i], at, bytes);
  turn_lanes(out);
}

// sums[g][t] += products of 64 codes of four rows with vector `vector` of the queries.
template <int kGroup>
KVASIR_INLINE void multiply_fours(const Bytes* codes, const PackedQuery& query, int vector, Bytes (*sums)[3]) {
  KVASIR_UNROLL
  for (int g = 0; g < kGroup; g++) {
    const char* at = query.at + g * query.stride + (int64_t)vector * kPackedVector;
    KVASIR_UNROLL
    for (int n = 0; n < 4; n++) {
      KVASIR_UNROLL
      for (int t = 0; t < 3; t++) sums[g][t] = dot(sums[g][t], codes[n], _mm512_loadu_si512(at + (3 * n + t) * kChunk));
    }
  }
}

// sums[g] += products of the codes [at, at + 64) of four rows with the queries.
template <typename X, int kGroup>
KVASIR_INLINE void multiply_chunk(const char* const* rows, int at, int bytes, const PackedQuery& query, Bytes (*sums)[3]) {
  Bytes turned[4], codes[4];
  turn_fours(rows, at, bytes, turned);
  if (kHasHalves<X>) {
    for (int n = 0; n < 4; n++) codes[n] = low_nibbles(turned[n]);
    multiply_fours<kGroup>(codes, query, 2 * (at / kChunk), sums);
    for (int n = 0; n < 4; n++) codes[n] = high_nibbles(turned[n]);
    multiply_fours<kGroup>(codes, query, 2 * (at / kChunk) + 1, sums);
  } else {
    for (int n = 0; n < 4; n++) codes[n] = _mm512_xor_si512(turned[n], _mm512_set1_epi8((char)0x80));
    multiply_fours<kGroup>(codes, query, at / kChunk, sums);
  }
}

template <typename X, int kGroup, bool kAhead>
static void score_ints(const VisibleRows<kBlockRows, false>& rows, const PackedQuery& query, int dim, float* scores) {
  const int bytes = code_bytes<X>(dim);
  const int64_t scale_at = scale_offset(X::kStorage, dim), tail_at = (int64_t)query_vectors<X>(dim) * kPackedVector;
  IntQuery tail[kGroup];
  for (int g = 0; g < kGroup; g++) __builtin_memcpy(&tail[g], query.at + g * query.stride + tail_at, sizeof tail[g]);
  for (int j = 0; j < rows.count; j += kLanes) {
    F parts[kGroup][4];
    for (int i = 0; i < 4; i++) {
      Bytes sums[kGroup][3];
      for (int g = 0; g < kGroup; g++) {
        for (int t = 0; t < 3; t++) sums[g][t] = _mm512_maskz_set1_epi32(0x000f, tail[g].begin[t]);  // one quarter
      }
      for (int at = 0; at < bytes; at += kChunk) {
        if (kAhead) prefetch_chunks<4>(rows.values + j + 4 * i, at);
        multiply_chunk<X, kGroup>(rows.keys + j + 4 * i, at, bytes, query, sums);
      }
      if (kAhead) prefetch_chunks<4>(rows.values + j + 4 * i, scale_at);
      for (int g = 0; g < kGroup; g++) parts[g][i] = joined(sums[g][0], sums[g][1], sums[g][2]);
    }
    const F scales = load_scales(rows.keys + j, scale_at);
    for (int g = 0; g < kGroup; g++) {
      F* x = parts[g];
      turn_quarters(x);
      const F score = mul(add(add(x[0], x[1]), add(x[2], x[3])), broadcast(tail[g].scale));
      store(scores + g * kBlockRows + j, mul(score, scales));
    }
  }
}

}  // namespace KVASIR_ISA
}  // namespace kvasir

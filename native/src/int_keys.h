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
// Where a term of dim d of a query lies first; a byte of int4 holds dims d and d + half.
template <typename X>
static inline int place_in_query(int d, int dim, int term) {
  const int half = (dim + 1) / 2, is_second = kHasHalves<X> && d >= half, within = is_second ? d - half : d;
  const int vector = kHasHalves<X> ? 2 * (within / kChunk) + is_second : within / kChunk;
  const int quarter = within % kChunk / 16, four = within % 16 / 4;
  return vector * kPackedVector + four * 3 * kChunk + term * kChunk + quarter * 16 + within % 4;
}

template <typename X>
static void pack_ints(const float* q, int dim, char* packed) {
  const int64_t size = (int64_t)query_vectors<X>(dim) * kPackedVector;
  const float largest = largest_of(q, dim), scale = largest / kQuerySteps;
  const float factor = scale > 0.0f && largest < __builtin_inff() ? kQuerySteps / largest : 0.0f;
  IntQuery tail = {{0, 0, 0}, scale};  // NaN where the query holds NaN or infinities
  __builtin_memset(packed, 0, (size_t)size);
  for (int d = 0; d < dim; d++) {
    int value = factor > 0.0f ? (int)__builtin_rintf(q[d] * factor) : 0;
    for (int t = 2; t >= 0; t--) {
      const int8_t term = (int8_t)value;
      char* to = packed + place_in_query<X>(d, dim, t);
      for (int row = 0; row < 4; row++) to[4 * row] = (char)term;
      tail.begin[t] -= kCodeBias<X> * term;
      value = (value - term) >> 8;
    }
  }
  __builtin_memcpy(packed + size, &tail, sizeof tail);
}

// Fours of codes of four rows: vector i holds of each 16 bytes those from 4 i on, row after row.
KVASIR_INLINE void turn_fours(const char* const* rows, int at, int bytes, Bytes* out) {
  Bytes r[4];
  KVASIR_UNROLL
  for (int i = 0; i < 4; i++) r[i] = load_chunk(rows[i], at, bytes);
  const Bytes a = _mm512_unpacklo_epi32(r[0], r[1]), b = _mm512_unpackhi_epi32(r[0], r[1]);
  const Bytes c = _mm512_unpacklo_epi32(r[2], r[3]), d = _mm512_unpackhi_epi32(r[2], r[3]);
  out[0] = _mm512_unpacklo_epi64(a, c);
  out[1] = _mm512_unpackhi_epi64(a, c);
  out[2] = _mm512_unpacklo_epi64(b, d);
  out[3] = _mm512_unpackhi_epi64(b, d);
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

// The inner loops over rows of int8 and int4 by dot products of bytes (VNNI). Queries and weights are integers too: a query
// is a sum of three bytes with one scale, 24 bits, as many as f32 has, and so are the weights of a block of rows. Sums of
// products are exact; only their scales are f32.
//
//   K: four dims of each of four rows lie side by side in each quarter of a register, so that what is left to be added up
//      across lanes are four quarters; the query is packed to match, each of its fours four times.
//   V: the bytes of four rows are interleaved, so that a lane is a dim and sums four rows; weights are broadcast.
//
// Turning and multiplying have to alternate in the program: the processor looks ahead by a few rows, and turning has one
// port where multiplying has two.
#pragma once
#include "byte_kernels.h"

namespace kvasir {
namespace KVASIR_ISA {

// sum + codes . terms, four bytes a lane: unsigned ones times signed ones. Written out, since compilers copy registers for
// the builtin and don't broadcast in it.
KVASIR_INLINE Bytes dot(Bytes sum, Bytes codes, Bytes terms) {
  __asm__("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(codes), "v"(terms));
  return sum;
}

KVASIR_INLINE Bytes low_nibbles(Bytes x) { return _mm512_and_si512(x, _mm512_set1_epi8(15)); }
KVASIR_INLINE Bytes high_nibbles(Bytes x) { return low_nibbles(_mm512_srli_epi16(x, 4)); }

// What a type's codes are less than the unsigned bytes that they become.
template <typename X>
constexpr int kCodeBias = X::kStorage == Storage::int4 ? 8 : 128;
template <typename X>
constexpr bool kHasHalves = X::kStorage == Storage::int4;

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

// A little below what three bytes hold, 127 * (2^16 + 2^8 + 1) and 2^24 - 1: the product with the largest may be rounded up.
constexpr float kQuerySteps = 8355000.0f, kWeightSteps = 16777000.0f;

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

// sum[0] * 2^16 + sum[1] * 2^8 + sum[2] as f32.
KVASIR_INLINE F joined(Bytes first, Bytes second, Bytes third) {
  const F rest = fma(_mm512_cvtepi32_ps(second), broadcast(256.0f), _mm512_cvtepi32_ps(third));
  return fma(_mm512_cvtepi32_ps(first), broadcast(65536.0f), rest);
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
  // Of each four numbers of 32 bits the third bytes, the second, the first, and zeros.
  const Bytes order = _mm512_broadcast_i32x4(_mm_setr_epi8(2, 6, 10, 14, 1, 5, 9, 13, 0, 4, 8, 12, -1, -1, -1, -1));
  Bytes totals = _mm512_setzero_si512();
  KVASIR_UNROLL
  for (int n = 0; n < kBlockRows / kLanes; n++) {
    const Bytes terms = _mm512_shuffle_epi8(_mm512_cvtps_epi32(mul(each[n], factor)), order);
    _mm512_store_si512(out->terms[4 * n], terms);
    totals = dot(totals, terms, _mm512_set1_epi8(1));
  }
  const __m256i half = _mm256_add_epi32(_mm512_castsi512_si256(totals), _mm512_extracti64x4_epi64(totals, 1));
  const __m128i total = _mm_add_epi32(_mm256_castsi256_si128(half), _mm256_extracti128_si256(half, 1));
  _mm_store_si128((__m128i*)out->totals, total);
  out->step = top / kWeightSteps;
  return true;
}

// The bytes of four rows side by side: vector n holds those of dims 4 n to 4 n + 3 of each 16.
KVASIR_INLINE void interleave(const char* const* rows, int at, int bytes, Bytes* out) {
  Bytes r[4];
  KVASIR_UNROLL
  for (int i = 0; i < 4; i++) r[i] = load_chunk(rows[i], at, bytes);
  const Bytes a = _mm512_unpacklo_epi8(r[0], r[1]), b = _mm512_unpackhi_epi8(r[0], r[1]);
  const Bytes c = _mm512_unpacklo_epi8(r[2], r[3]), d = _mm512_unpackhi_epi8(r[2], r[3]);
  out[0] = _mm512_unpacklo_epi16(a, c);
  out[1] = _mm512_unpackhi_epi16(a, c);
  out[2] = _mm512_unpacklo_epi16(b, d);
  out[3] = _mm512_unpackhi_epi16(b, d);
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
    // The first head interleaves the rows for the others.
    Bytes low[kBlockRows / 4][4], high[kBlockRows / 4][4];
    const auto read_rows = [&](int q, Bytes* codes) __attribute__((always_inline)) {
      if (kAhead) prefetch_chunks<4>(ahead + 4 * q, at);
      interleave(rows.values + 4 * q, at, bytes, codes);
      KVASIR_UNROLL
      for (int n = 0; n < 4; n++) {
        if (kHasHalves<X>) {
          high[q][n] = high_nibbles(codes[n]);
          codes[n] = low_nibbles(codes[n]);
        }
        if (kGroup > 1) low[q][n] = codes[n];
      }
    };
    const auto read_low = [&](int q, Bytes* codes) { __builtin_memcpy(codes, low[q], sizeof low[q]); };
    const auto read_high = [&](int q, Bytes* codes) { __builtin_memcpy(codes, high[q], sizeof high[q]); };
    for (int g = 0; g < kGroup; g++) {
      float* row = out + g * stride + at;
      if (g == 0) add_quads<kBias>(read_rows, quads, split[g], row, bytes - at);
      else add_quads<kBias>(read_low, quads, split[g], row, bytes - at);
      if (kHasHalves<X>) add_quads<kBias>(read_high, quads, split[g], row + bytes, dim - bytes - at);
    }
  }
  for (int j = 0; kAhead && j < rows.count; j += 4) prefetch_chunks<4>(ahead + j, scale_offset(X::kStorage, dim));
  return true;
}

}  // namespace KVASIR_ISA
}  // namespace kvasir

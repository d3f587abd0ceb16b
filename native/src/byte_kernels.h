// The inner loops over rows of int4, and over V of e4m3, on AVX-512 with dot products and table look-ups of bytes (VNNI,
// VBMI). (int8 is faster widened: with three terms a dot product does no more than two multiply-adds of f32. So is e5m2,
// which is the upper half of f16.)
//
// int4 meets queries and weights as integers: a query is a sum of three bytes with one scale, 24 bits, as many as f32 has,
// and so are the weights of a block of rows. Sums of products are exact; only their scales are f32.
//
//   K: 16 rows are turned so that a lane is a row and a register holds four dims; the query is broadcast.
//   V: the bytes of four rows are interleaved, so that a lane is a dim and sums four rows; weights are broadcast.
//
// e4m3 is looked up, 64 at once: two tables of 128 bytes hold the halves of a bf16, which is the upper half of an f32.
#pragma once
#include "rows.h"

namespace kvasir {
namespace KVASIR_ISA {

using Bytes = __m512i;
// Sums have to stay in registers.
#define KVASIR_UNROLL _Pragma("GCC unroll 16")
constexpr int kChunk = 64;  // bytes of a register

static inline int chunks_of(int bytes) { return (bytes + kChunk - 1) / kChunk; }
// Bytes of codes.
static inline int code_bytes(const Int4*, int dim) { return (dim + 1) / 2; }
static inline int code_bytes(const void*, int dim) { return dim; }

static inline Bytes load_chunk(const char* row, int at, int bytes) {
  const int left = bytes - at;
  return left >= kChunk ? _mm512_loadu_si512(row + at) : _mm512_maskz_loadu_epi8(((__mmask64)1 << left) - 1, row + at);
}
static inline Bytes low_nibbles(Bytes x) { return _mm512_and_si512(x, _mm512_set1_epi8(15)); }
static inline Bytes high_nibbles(Bytes x) { return low_nibbles(_mm512_srli_epi16(x, 4)); }

// Scales of the first `count` rows, zeros after them.
template <typename X>
static inline void load_scales(const char* const* rows, int count, int dim, float* scales) {
  const int64_t at = scale_offset(X::kStorage, dim);
  for (int j = 0; j < kBlockRows; j++) {
    float scale = 0.0f;
    if (j < count) __builtin_memcpy(&scale, rows[j] + at, 4);
    scales[j] = scale;
  }
}

// All cache lines of a row, but for one that the next row in memory shares.
template <typename X>
static inline void prefetch_row(const char* row, int dim) {
  const int bytes = code_bytes((const X*)nullptr, dim);
  for (int at = 0; at < bytes; at += kChunk) __builtin_prefetch(row + at, 0, 2);
  __builtin_prefetch(row + scale_offset(X::kStorage, dim), 0, 2);
}

// A packed query: [3, vectors, 64] bytes, then what the sums begin with and the scale.
struct IntQuery {
  int32_t begin[3];
  float scale;
};
static inline int query_vectors(int dim) { return 2 * chunks_of((dim + 1) / 2); }
// So many bytes of a row are summed as integers, which keeps the sums of terms of 8 bits within 32 bits.
constexpr int kIntBytes = 32 * kChunk;

constexpr int kInt4Bias = 8;
// A little below what three bytes hold, 127 * (2^16 + 2^8 + 1) and 2^24 - 1: the product with the largest may be rounded up.
constexpr float kQuerySteps = 8355000.0f, kWeightSteps = 16777000.0f;

static void pack_int4(const float* q, int dim, char* packed) {
  const int vectors = query_vectors(dim), half = (dim + 1) / 2;
  const float largest = largest_of(q, dim), scale = largest / kQuerySteps;
  const float factor = scale > 0.0f && largest < __builtin_inff() ? kQuerySteps / largest : 0.0f;
  IntQuery tail = {{0, 0, 0}, scale};  // NaN where the query holds NaN or infinities
  __builtin_memset(packed, 0, (size_t)3 * vectors * kChunk);
  for (int d = 0; d < dim; d++) {
    const int within = d < half ? d : d - half;
    const int at = 2 * (within / kChunk) * kChunk + within % kChunk + (d < half ? 0 : kChunk);
    int value = factor > 0.0f ? (int)__builtin_rintf(q[d] * factor) : 0;
    for (int t = 2; t >= 0; t--) {
      const int8_t term = (int8_t)value;
      packed[(int64_t)t * vectors * kChunk + at] = (char)term;
      // Codes are stored too large by so much.
      tail.begin[t] -= kInt4Bias * term;
      value = (value - term) >> 8;
    }
  }
  __builtin_memcpy(packed + (int64_t)3 * vectors * kChunk, &tail, sizeof tail);
}

static inline int32_t four_bytes(const char* at) {
  int32_t bytes;
  __builtin_memcpy(&bytes, at, 4);
  return bytes;
}

// sums[g][t] += products of 64 codes of 16 rows, turned, with vector `vector` of the queries.
template <int kGroup>
static inline __attribute__((always_inline)) void multiply_turned(const Bytes* codes, const PackedQuery& query, int vector,
                                                                  int vectors, Bytes (*sums)[3]) {
  for (int w = 0; w < 16; w++) {
    for (int g = 0; g < kGroup; g++) {
      const char* at = query.at + g * query.stride + (int64_t)vector * kChunk + 4 * w;
      for (int t = 0; t < 3; t++) {
        const Bytes term = _mm512_set1_epi32(four_bytes(at + (int64_t)t * vectors * kChunk));
        sums[g][t] = _mm512_dpbusd_epi32(sums[g][t], codes[w], term);
      }
    }
  }
}

// sum[0] * 2^16 + sum[1] * 2^8 + sum[2] as f32.
static inline F joined(Bytes first, Bytes second, Bytes third) {
  const Bytes rest = _mm512_add_epi32(_mm512_slli_epi32(second, 8), third);
  return fma(_mm512_cvtepi32_ps(first), broadcast(65536.0f), _mm512_cvtepi32_ps(rest));
}

template <int kGroup, bool kAhead>
static void score_int4(const VisibleRows<kBlockRows, false>& rows, const PackedQuery& query, int dim, float* scores) {
  const int vectors = query_vectors(dim), bytes = (dim + 1) / 2;
  float scales[kBlockRows];
  load_scales<Int4>(rows.keys, rows.count, dim, scales);
  IntQuery tail[kGroup];
  for (int g = 0; g < kGroup; g++) {
    __builtin_memcpy(&tail[g], query.at + g * query.stride + (int64_t)3 * vectors * kChunk, sizeof tail[g]);
  }
  for (int j = 0; j < rows.count; j += kLanes) {
    Bytes sums[kGroup][3];
    F before[kGroup];
    for (int g = 0; g < kGroup; g++) {
      for (int t = 0; t < 3; t++) sums[g][t] = _mm512_set1_epi32(tail[g].begin[t]);
      before[g] = zero();
    }
    for (int at = 0, c = 0; at < bytes; at += kChunk, c++) {
      for (int g = 0; at > 0 && at % kIntBytes == 0 && g < kGroup; g++) {
        before[g] = add(before[g], joined(sums[g][0], sums[g][1], sums[g][2]));
        for (int t = 0; t < 3; t++) sums[g][t] = _mm512_setzero_si512();
      }
      F codes[16];
      for (int i = 0; i < 16; i++) codes[i] = _mm512_castsi512_ps(load_chunk(rows.keys[j + i], at, bytes));
      transpose(codes);
      Bytes unsigned_codes[16];
      for (int w = 0; w < 16; w++) unsigned_codes[w] = low_nibbles(_mm512_castps_si512(codes[w]));
      multiply_turned<kGroup>(unsigned_codes, query, 2 * c, vectors, sums);
      for (int w = 0; w < 16; w++) unsigned_codes[w] = high_nibbles(_mm512_castps_si512(codes[w]));
      multiply_turned<kGroup>(unsigned_codes, query, 2 * c + 1, vectors, sums);
    }
    for (int i = 0; kAhead && i < kLanes; i++) prefetch_row<Int4>(rows.values[j + i], dim);
    for (int g = 0; g < kGroup; g++) {
      const F sum = add(before[g], joined(sums[g][0], sums[g][1], sums[g][2]));
      const F score = mul(sum, broadcast(tail[g].scale));
      store(scores + g * kBlockRows + j, mul(score, load(scales + j)));
    }
  }
}

// Weights of a block for one head as integers: value = step * (term 0 * 2^16 + term 1 * 2^8 + term 2).
struct IntWeights {
  alignas(64) uint8_t terms[3][kBlockRows];
  int32_t totals[3];
  float step;
};

// Returns false where they can't be: NaN, infinite, negative, or so small that their scale would be infinite.
static inline bool split_block(const float* weights, IntWeights* out) {
  F most = zero(), least = zero(), spoiled = zero();
  for (int j = 0; j < kBlockRows; j += kLanes) {
    const F each = load(weights + j);
    most = _mm512_max_ps(most, each);
    least = _mm512_min_ps(least, each);
    spoiled = fma(each, zero(), spoiled);
  }
  const float top = _mm512_reduce_max_ps(most);
  const bool is_negative = _mm512_cmp_ps_mask(least, zero(), _CMP_LT_OQ) != 0;
  if (reduce_add(spoiled) != 0.0f || is_negative || (top > 0.0f && top < 1e-30f)) return false;
  const F factor = broadcast(top > 0.0f ? kWeightSteps / top : 0.0f);
  Bytes totals[3] = {_mm512_setzero_si512(), _mm512_setzero_si512(), _mm512_setzero_si512()};
  for (int j = 0; j < kBlockRows; j += kLanes) {
    const Bytes all = _mm512_cvtps_epi32(mul(load(weights + j), factor));
    for (int t = 0; t < 3; t++) {
      const Bytes term = _mm512_and_si512(_mm512_srli_epi32(all, 16 - 8 * t), _mm512_set1_epi32(255));
      _mm_store_si128((__m128i*)(out->terms[t] + j), _mm512_cvtepi32_epi8(term));
      totals[t] = _mm512_add_epi32(totals[t], term);
    }
  }
  for (int t = 0; t < 3; t++) out->totals[t] = _mm512_reduce_add_epi32(totals[t]);
  out->step = top / kWeightSteps;
  return true;
}

// Quarters of four vectors: vector i gets quarter i of each.
static inline void turn_quarters(F* x) {
  const F a = _mm512_shuffle_f32x4(x[0], x[1], 0x44), b = _mm512_shuffle_f32x4(x[0], x[1], 0xee);
  const F c = _mm512_shuffle_f32x4(x[2], x[3], 0x44), d = _mm512_shuffle_f32x4(x[2], x[3], 0xee);
  x[0] = _mm512_shuffle_f32x4(a, c, 0x88);
  x[1] = _mm512_shuffle_f32x4(a, c, 0xdd);
  x[2] = _mm512_shuffle_f32x4(b, d, 0x88);
  x[3] = _mm512_shuffle_f32x4(b, d, 0xdd);
}

// out[0 .. count) += factor * x of up to four vectors.
static inline void add_to_row(float* out, const F* x, F factor, int count) {
  for (int n = 0; n < 4 && n * kLanes < count; n++) {
    const int left = count - n * kLanes;
    const __mmask16 used = left >= kLanes ? (__mmask16)0xffff : (__mmask16)((1u << left) - 1);
    const F sum = fma(x[n], factor, _mm512_maskz_loadu_ps(used, out + n * kLanes));
    _mm512_mask_storeu_ps(out + n * kLanes, used, sum);
  }
}

// out[e] += weights . codes for 64 dims: `quads` of rows, each as four vectors of interleaved bytes.
static inline void add_quads(const Bytes (*quads)[4], int num_quads, const IntWeights& weights, float* out, int count) {
  Bytes sums[3][4];
  for (int t = 0; t < 3; t++) {
    for (int n = 0; n < 4; n++) sums[t][n] = _mm512_set1_epi32(-kInt4Bias * weights.totals[t]);
  }
  for (int q = 0; q < num_quads; q++) {
    for (int t = 0; t < 3; t++) {
      const Bytes weight = _mm512_set1_epi32(four_bytes((const char*)weights.terms[t] + 4 * q));
      for (int n = 0; n < 4; n++) sums[t][n] = _mm512_dpbusd_epi32(sums[t][n], weight, quads[q][n]);
    }
  }
  F x[4];
  for (int n = 0; n < 4; n++) x[n] = joined(sums[0][n], sums[1][n], sums[2][n]);
  turn_quarters(x);
  add_to_row(out, x, broadcast(weights.step), count);
}

// The bytes of four rows side by side: vector n holds those of dims 4 n to 4 n + 3 of each 16.
static inline void interleave(const char* const* rows, int at, int bytes, Bytes* out) {
  Bytes r[4];
  for (int i = 0; i < 4; i++) r[i] = load_chunk(rows[i], at, bytes);
  const Bytes a = _mm512_unpacklo_epi8(r[0], r[1]), b = _mm512_unpackhi_epi8(r[0], r[1]);
  const Bytes c = _mm512_unpacklo_epi8(r[2], r[3]), d = _mm512_unpackhi_epi8(r[2], r[3]);
  out[0] = _mm512_unpacklo_epi16(a, c);
  out[1] = _mm512_unpackhi_epi16(a, c);
  out[2] = _mm512_unpacklo_epi16(b, d);
  out[3] = _mm512_unpackhi_epi16(b, d);
}

// Returns false where the weights are such that it has to be done otherwise; nothing has happened then.
template <int kGroup, bool kAhead>
static bool add_int4(const VisibleRows<kBlockRows, false>& rows, const char* const* ahead, const float* weights, float* out,
                     int dim) {
  float scales[kBlockRows], scaled[kBlockRows];
  load_scales<Int4>(rows.values, rows.count, dim, scales);
  IntWeights split[kGroup];
  for (int g = 0; g < kGroup; g++) {
    for (int j = 0; j < kBlockRows; j += kLanes) store(scaled + j, mul(load(weights + g * kBlockRows + j), load(scales + j)));
    if (!split_block(scaled, &split[g])) return false;
  }
  const int bytes = (dim + 1) / 2, quads = (rows.count + 3) / 4, stride = padded(dim);
  for (int at = 0; at < bytes; at += kChunk) {
    Bytes low[kBlockRows / 4][4], high[kBlockRows / 4][4];
    for (int q = 0; q < quads; q++) {
      interleave(rows.values + 4 * q, at, bytes, low[q]);
      for (int n = 0; n < 4; n++) {
        high[q][n] = high_nibbles(low[q][n]);
        low[q][n] = low_nibbles(low[q][n]);
      }
      for (int i = 0; kAhead && at == 0 && i < 4; i++) prefetch_row<Int4>(ahead[4 * q + i], dim);
    }
    for (int g = 0; g < kGroup; g++) {
      float* row = out + g * stride;
      add_quads(low, quads, split[g], row + at, bytes - at);
      add_quads(high, quads, split[g], row + bytes + at, dim - bytes - at);
    }
  }
  return true;
}

// The halves of bf16 that the magnitudes of e4m3 are.
struct FloatTables {
  alignas(64) uint8_t low[128], high[128];
};
constexpr uint16_t brain_of_e4m3(int code) {
  constexpr int kFraction = 3, kBias = 7, kNan = 0x7f;
  if (code == kNan) return 0x7fc0;
  int exponent = code >> kFraction, rest = code & ((1 << kFraction) - 1);
  if (exponent == 0) {
    // Multiples of the least number are normalised.
    if (rest == 0) return 0;
    exponent = 1;
    while (rest < 1 << kFraction) {
      rest *= 2;
      exponent--;
    }
    rest -= 1 << kFraction;
  }
  return (uint16_t)(((exponent - kBias + 127) << 7) | (rest << (7 - kFraction)));
}
constexpr FloatTables tables_of_e4m3() {
  FloatTables tables{};
  for (int code = 0; code < 128; code++) {
    tables.low[code] = (uint8_t)brain_of_e4m3(code);
    tables.high[code] = (uint8_t)(brain_of_e4m3(code) >> 8);
  }
  return tables;
}
constexpr FloatTables kE4m3Tables = tables_of_e4m3();

// 64 codes as four vectors: of each 16 codes the even and the odd ones of the first eight, then those of the last eight.
static inline __attribute__((always_inline)) void look_up(Bytes codes, F* out) {
  const FloatTables& tables = kE4m3Tables;
  const Bytes low = _mm512_permutex2var_epi8(_mm512_load_si512(tables.low), codes, _mm512_load_si512(tables.low + 64));
  const Bytes size = _mm512_permutex2var_epi8(_mm512_load_si512(tables.high), codes, _mm512_load_si512(tables.high + 64));
  // size | (codes & 0x80)
  const Bytes high = _mm512_ternarylogic_epi32(size, codes, _mm512_set1_epi8((char)0x80), 0xf8);
  const Bytes a = _mm512_unpacklo_epi8(low, high), b = _mm512_unpackhi_epi8(low, high);
  const Bytes upper = _mm512_set1_epi32((int32_t)0xffff0000);
  out[0] = _mm512_castsi512_ps(_mm512_slli_epi32(a, 16));
  out[1] = _mm512_castsi512_ps(_mm512_and_si512(a, upper));
  out[2] = _mm512_castsi512_ps(_mm512_slli_epi32(b, 16));
  out[3] = _mm512_castsi512_ps(_mm512_and_si512(b, upper));
}

template <int kGroup, bool kAhead>
static void add_e4m3(const VisibleRows<kBlockRows, false>& rows, const char* const* ahead, const float* weights, float* out,
                     int dim) {
  float scales[kBlockRows], scaled[kGroup * kBlockRows];
  load_scales<E4m3>(rows.values, rows.count, dim, scales);
  for (int at = 0; at < kGroup * kBlockRows; at += kLanes) {
    store(scaled + at, mul(load(weights + at), load(scales + at % kBlockRows)));
  }
  for (int at = 0; at < dim; at += kChunk) {
    F sums[kGroup][4];
    KVASIR_UNROLL
    for (int g = 0; g < kGroup; g++) {
      KVASIR_UNROLL
      for (int n = 0; n < 4; n++) sums[g][n] = zero();
    }
    for (int j = 0; j < rows.count; j++) {
      F v[4];
      if (kAhead && at == 0) prefetch_row<E4m3>(ahead[j], dim);
      look_up(load_chunk(rows.values[j], at, dim), v);
      KVASIR_UNROLL
      for (int g = 0; g < kGroup; g++) {
        const F weight = broadcast(scaled[g * kBlockRows + j]);
        KVASIR_UNROLL
        for (int n = 0; n < 4; n++) sums[g][n] = fma(weight, v[n], sums[g][n]);
      }
    }
    KVASIR_UNROLL
    for (int g = 0; g < kGroup; g++) {
      F x[4] = {_mm512_unpacklo_ps(sums[g][0], sums[g][1]), _mm512_unpackhi_ps(sums[g][0], sums[g][1]),
                _mm512_unpacklo_ps(sums[g][2], sums[g][3]), _mm512_unpackhi_ps(sums[g][2], sums[g][3])};
      turn_quarters(x);
      add_to_row(out + g * padded(dim) + at, x, broadcast(1.0f), dim - at);
    }
  }
}

}  // namespace KVASIR_ISA
}  // namespace kvasir

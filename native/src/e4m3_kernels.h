// The inner loops over rows of e4m3 by look-up (VBMI), 64 codes at once: two tables of 128 bytes hold the halves of a bf16,
// which is the upper half of an f32. (e5m2 is the upper half of f16: look-ups gain nothing.)
#pragma once
#include "byte_kernels.h"

namespace kvasir {
namespace KVASIR_ISA {

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
KVASIR_INLINE void look_up(Bytes codes, F* out) {
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

// A query as floats in the order of `look_up`, zeros past its end.
static void pack_e4m3(const float* q, int dim, char* packed) {
  const Bytes order = _mm512_setr_epi32(0, 2, 4, 6, 1, 3, 5, 7, 8, 10, 12, 14, 9, 11, 13, 15);
  for (int at = 0; at < dim; at += kChunk) {
    F x[4];
    for (int n = 0; n < 4; n++) {
      const int left = dim - at - n * kLanes;
      const __mmask16 used = left >= kLanes ? 0xffff : left > 0 ? (__mmask16)((1u << left) - 1) : 0;
      x[n] = _mm512_permutexvar_ps(order, _mm512_maskz_loadu_ps(used, q + at + n * kLanes));
    }
    turn_quarters(x);
    for (int n = 0; n < 4; n++) store((float*)packed + at + n * kLanes, x[n]);
  }
}

// sums[g, i] = lanes of q[g] . k[i] for a few rows, which share what is loaded of the queries.
template <int kGroup, int kRows>
KVASIR_INLINE void multiply_e4m3(const char* const* keys, const PackedQuery& query, int dim, F (*sums)[kRows]) {
  constexpr int kParts = kGroup < 4 ? 4 / kGroup : 1;  // of a sum, so that products need not wait for each other
  F parts[kGroup][kRows][kParts];
  KVASIR_UNROLL
  for (int g = 0; g < kGroup; g++) {
    KVASIR_UNROLL
    for (int n = 0; n < kRows * kParts; n++) parts[g][n / kParts][n % kParts] = zero();
  }
  for (int at = 0; at < dim; at += kChunk) {
    F k[kRows][4];
    KVASIR_UNROLL
    for (int i = 0; i < kRows; i++) look_up(load_chunk(keys[i], at, dim), k[i]);
    KVASIR_UNROLL
    for (int g = 0; g < kGroup; g++) {
      const float* q = (const float*)(query.at + g * query.stride) + at;
      KVASIR_UNROLL
      for (int n = 0; n < 4; n++) {
        const F each = rounded(load(q + n * kLanes));
        KVASIR_UNROLL
        for (int i = 0; i < kRows; i++) parts[g][i][n % kParts] = fma(k[i][n], each, parts[g][i][n % kParts]);
      }
    }
  }
  KVASIR_UNROLL
  for (int g = 0; g < kGroup; g++) {
    KVASIR_UNROLL
    for (int i = 0; i < kRows; i++) {
      F* part = parts[g][i];
      for (int n = kParts / 2; n > 0; n /= 2) {
        for (int m = 0; m < n; m++) part[m] = add(part[m], part[m + n]);
      }
      sums[g][i] = part[0];
    }
  }
}

// As many rows at a time as make 16 sums across lanes.
template <int kGroup, bool kAhead>
static void score_e4m3(const VisibleRows<kBlockRows, false>& rows, const PackedQuery& query, int dim, float* scores) {
  constexpr int kRows = kLanes / kGroup, kAtOnce = kGroup == 1 ? 1 : 2;
  const int64_t scale_at = scale_offset(Storage::e4m3, dim);
  for (int j = 0; j < rows.count; j += kRows) {
    F sums[kLanes];
    for (int i = 0; i < kRows; i += kAtOnce) {
      for (int at = 0; kAhead && at < dim; at += kChunk) prefetch_chunks<kAtOnce>(rows.values + j + i, at);
      if (kAhead) prefetch_chunks<kAtOnce>(rows.values + j + i, scale_at);
      F few[kGroup][kAtOnce];
      multiply_e4m3<kGroup, kAtOnce>(rows.keys + j + i, query, dim, few);
      KVASIR_UNROLL
      for (int g = 0; g < kGroup; g++) {
        for (int n = 0; n < kAtOnce; n++) sums[g * kRows + i + n] = few[g][n];
      }
    }
    float total[kLanes];
    store(total, reduce_each(sums));
    for (int g = 0; g < kGroup; g++) __builtin_memcpy(scores + g * kBlockRows + j, total + g * kRows, kRows * 4);
  }
  for (int j = 0; j < rows.count; j += kLanes) {
    const F scales = load_scales(rows.keys + j, scale_at);
    for (int g = 0; g < kGroup; g++) {
      float* at = scores + g * kBlockRows + j;
      store(at, mul(load(at), scales));
    }
  }
}

template <int kGroup, bool kAhead>
static void add_e4m3(const VisibleRows<kBlockRows, false>& rows, const char* const* ahead, const float* weights, float* out,
                     int dim) {
  F scales[kBlockRows / kLanes];
  block_scales<E4m3>(rows.values, rows.count, dim, scales);
  float scaled[kGroup * kBlockRows];
  for (int at = 0; at < kGroup * kBlockRows; at += kLanes) {
    store(scaled + at, mul(load(weights + at), scales[at % kBlockRows / kLanes]));
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
      if (kAhead) __builtin_prefetch(ahead[j] + at, 0, 2);
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
  for (int j = 0; kAhead && j < rows.count; j += 4) prefetch_chunks<4>(ahead + j, scale_offset(Storage::e4m3, dim));
}

}  // namespace KVASIR_ISA
}  // namespace kvasir

// Scores of rows of int8 and int4 for four and eight query heads on the matrix unit (AMX): 16 rows, 64 dims at a time, meet
// as one register the terms of four queries as the columns of another. Terms are those of int_products.h, three bytes a
// number with one scale, so sums are exact.
#pragma once
#include "int_keys.h"
#include "matrix_products.h"

namespace kvasir {
namespace KVASIR_ISA {

constexpr int kSetHeads = 4;  // query heads whose terms lie in the columns of one register: 3 of 4 columns are used

// A packed set: [vectors] registers of 16 fours of dims x 16 columns, column 4 t + g for term t of query g; then the scales.
struct SetScales {
  float of[kSetHeads];
};

template <typename X>
static void pack_set(const float* q, int dim, char* packed) {
  const int vectors = query_vectors<X>(dim);
  __builtin_memset(packed, 0, (int64_t)vectors * kRegister);
  SetScales scales;
  for (int g = 0; g < kSetHeads; g++) {
    scales.of[g] = each_quarter<X>(q + (int64_t)g * padded(dim), dim, [&](Bytes numbers, int v, int quarter) {
      int32_t terms[4][4];  // of four fours of dims
      _mm512_storeu_si512(terms, bytes_by_place(signed_bytes(numbers)));
      char* to = packed + (int64_t)v * kRegister + quarter * 4 * kChunk + 4 * g;
      for (int i = 0; i < 4; i++) {
        for (int t = 0; t < 3; t++) __builtin_memcpy(to + i * kChunk + t * 16, &terms[i][t], 4);
      }
    });
  }
  __builtin_memcpy(packed + (int64_t)vectors * kRegister, &scales, sizeof scales);
}

template <typename X, int kSets>
static void pack_sets(const float* q, int dim, char* packed) {
  for (int s = 0; s < kSets; s++) {
    const int64_t first = s * kSetHeads;
    pack_set<X>(q + first * padded(dim), dim, packed + first * packed_bytes(dim));
  }
}

// Stores codes of int8 as they are, those of int4 as the two registers that their halves become.
template <typename X>
KVASIR_INLINE void store_codes(Bytes codes, char* to, int64_t half) {
  if (kHasHalves<X>) {
    const Bytes bias = _mm512_set1_epi8(kCodeBias<X>);
    _mm512_store_si512(to, _mm512_sub_epi8(low_nibbles(codes), bias));
    _mm512_store_si512(to + half, _mm512_sub_epi8(high_nibbles(codes), bias));
  } else {
    _mm512_store_si512(to, codes);
  }
}

// Where a register of codes is loaded from: 16 rows so far apart.
struct RegisterRows {
  const char* at;
  int64_t apart;
};

// Whether 16 rows lie at equal distances.
KVASIR_INLINE bool lie_evenly(const char* const* rows) {
  const int64_t base = (int64_t)rows[0], apart = (int64_t)rows[1] - base;
  const Bytes steps = _mm512_mullo_epi64(_mm512_set_epi64(7, 6, 5, 4, 3, 2, 1, 0), _mm512_set1_epi64(apart));
  const Bytes first = _mm512_add_epi64(_mm512_set1_epi64(base), steps);
  const Bytes second = _mm512_add_epi64(first, _mm512_set1_epi64(8 * apart));
  return !(_mm512_cmpneq_epi64_mask(_mm512_loadu_si512(rows), first) |
           _mm512_cmpneq_epi64_mask(_mm512_loadu_si512(rows + 8), second));
}

// Two registers of codes of 16 rows: of int8 two chunks, or the last one, of int4 the halves of one.
template <typename X>
struct CodePair {
  static constexpr int kPairBytes = kHasHalves<X> ? kChunk : 2 * kChunk;
  RegisterRows of[2];
  int count;
  alignas(64) char copies[2 * kRegister];

  // The codes from `at` on: where they lie, or, unless rows are even and their chunks whole, as copies.
  inline __attribute__((always_inline)) void place(const char* const* rows, int at, int bytes) {
    count = kHasHalves<X> || bytes - at > kChunk ? 2 : 1;
    if (!kHasHalves<X> && at + count * kChunk <= bytes && lie_evenly(rows)) {
      const int64_t apart = rows[1] - rows[0];
      of[0] = {rows[0] + at, apart};
      of[1] = {rows[0] + at + kChunk, apart};
      return;
    }
    of[0] = {copies, kChunk};
    of[1] = {copies + kRegister, kChunk};
    for (int n = 0; n < (kHasHalves<X> ? 1 : count); n++) {
      KVASIR_UNROLL
      for (int i = 0; i < kEdge; i++) {
        store_codes<X>(load_chunk(rows[i], at + n * kChunk, bytes), copies + n * kRegister + i * kChunk, kRegister);
      }
    }
  }
};

// Columns of each set for a pair of registers of codes, to registers 4 to 7.
template <int kSets>
KVASIR_INLINE void load_columns(const PackedQuery& query, int vector, int count) {
  const char* at = query.at + (int64_t)vector * kRegister;
  _tile_loadd(4, at, kChunk);
  if (count == 2) _tile_loadd(5, at + kRegister, kChunk);
  if (kSets == 1) return;
  at += kSetHeads * query.stride;
  _tile_loadd(6, at, kChunk);
  if (count == 2) _tile_loadd(7, at + kRegister, kChunk);
}

// Registers 0 and, of a second set, 1 += products of codes and columns.
template <typename X, int kSets>
KVASIR_INLINE void multiply_codes(const CodePair<X>& codes) {
  _tile_loadd(2, codes.of[0].at, codes.of[0].apart);
  _tile_dpbssd(0, 2, 4);
  if (kSets == 2) _tile_dpbssd(1, 2, 6);
  if (codes.count < 2) return;
  _tile_loadd(3, codes.of[1].at, codes.of[1].apart);
  _tile_dpbssd(0, 3, 5);
  if (kSets == 2) _tile_dpbssd(1, 3, 7);
}

// Sums of 16 rows with the terms of four queries to one vector a query.
KVASIR_INLINE void read_sums(const int32_t* sums, F* out) {
  Bytes fours[4];
  KVASIR_UNROLL
  for (int m = 0; m < 4; m++) {
    F x[4];  // of every fourth row; then, term by term, the four queries of each of these
    KVASIR_UNROLL
    for (int i = 0; i < 4; i++) x[i] = load((const float*)sums + (m + 4 * i) * kEdge);
    turn_quarters(x);
    fours[m] = _mm512_castps_si512(joined(_mm512_castps_si512(x[0]), _mm512_castps_si512(x[1]), _mm512_castps_si512(x[2])));
  }
  turn_lanes(fours);
  KVASIR_UNROLL
  for (int g = 0; g < 4; g++) out[g] = _mm512_castsi512_ps(fours[g]);
}

// scores[g, 16] of the four heads of each set, from the sums of 16 rows.
template <int kSets>
KVASIR_INLINE void finish_scores(const int32_t (*sums)[kEdge * kEdge], const SetScales* scales, F of_rows, float* scores) {
  for (int s = 0; s < kSets; s++) {
    F x[kSetHeads];
    read_sums(sums[s], x);
    KVASIR_UNROLL
    for (int g = 0; g < kSetHeads; g++) {
      store(scores + (s * kSetHeads + g) * kBlockRows, mul(mul(x[g], broadcast(scales[s].of[g])), of_rows));
    }
  }
}

template <typename X, int kSets, bool kAhead>
static void score_sets(const DecodeRows& rows, const PackedQuery& query, int dim, float* scores) {
  constexpr int kPairBytes = CodePair<X>::kPairBytes;
  const int bytes = code_bytes<X>(dim), pairs = (bytes + kPairBytes - 1) / kPairBytes;
  const int64_t scale_at = scale_offset(X::kStorage, dim), scales_at = (int64_t)query_vectors<X>(dim) * kRegister;
  SetScales scales[kSets];
  for (int s = 0; s < kSets; s++) __builtin_memcpy(scales + s, query.at + s * kSetHeads * query.stride + scales_at, sizeof *scales);
  alignas(64) int32_t sums[2][kSets][kEdge * kEdge];
  CodePair<X> codes[2];
  const auto finish = [&](int j) __attribute__((always_inline)) {
    finish_scores<kSets>(sums[j / kEdge % 2], scales, load_scales(rows.keys + j, scale_at), scores + j);
  };
  int current = 0;
  codes[0].place(rows.keys, 0, bytes);
  if (pairs == 1) load_columns<kSets>(query, 0, codes[0].count);
  for (int j = 0; j < rows.count; j += kEdge) {
    _tile_zero(0);
    if (kSets == 2) _tile_zero(1);
    for (int pair = 0; pair < pairs; pair++) {
      if (pairs > 1) load_columns<kSets>(query, 2 * pair, codes[current].count);
      multiply_codes<X, kSets>(codes[current]);
      current = 1 - current;
      // What is copied is loaded only after the products of what was copied before.
      if (pair + 1 < pairs) codes[current].place(rows.keys + j, (pair + 1) * kPairBytes, bytes);
      else if (j + kEdge < rows.count) codes[current].place(rows.keys + j + kEdge, 0, bytes);
    }
    _tile_stored(0, sums[j / kEdge % 2][0], kChunk);
    if (kSets == 2) _tile_stored(1, sums[j / kEdge % 2][kSets - 1], kChunk);
    for (int at = 0; kAhead && at < bytes; at += kChunk) prefetch_chunks<kEdge>(rows.values + j, at);
    if (kAhead) prefetch_chunks<kEdge>(rows.values + j, scale_at);
    if (j > 0) finish(j - kEdge);
  }
  finish((rows.count - 1) / kEdge * kEdge);
}

}  // namespace KVASIR_ISA
}  // namespace kvasir

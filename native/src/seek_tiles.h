// Bounds of int8 on the matrix unit of newer servers (AMX): 16 rows, 64 dims at a time, meet the terms of four queries
// as the columns of one tile register. Terms are those of int_products.h, three bytes a number with one scale, so sums
// are exact.
#pragma once
#include "matrix_unit.h"
#include "packed_query.h"

namespace kvasir {
namespace KVASIR_ISA {

constexpr int kBoundRows = 16, kBoundDims = 64, kBoundQueries = 4;

#if defined(KVASIR_AMX)

// The queries of a group, four at a time.
struct TileQueries {
  char* columns;  // [sets, dim / 64, 16, 64]: of 16 fours of dims, first terms of each query, then second, then third
  float* scales;  // [sets, 4]
  float* idle;    // [sets, 4]: -infinity for queries that are not there
  char* rest;     // [16, row]: the last rows, where there are fewer than 16

  static bool takes(Storage storage, int dim) { return storage == Storage::int8 && dim % kBoundDims == 0; }
  static int sets(int group) { return (group + kBoundQueries - 1) / kBoundQueries; }

  void place(Arena& arena, int group, int dim) {
    columns = arena.take<char>((int64_t)sets(group) * 16 * dim);
    scales = arena.take<float>(sets(group) * kBoundQueries);
    idle = arena.take<float>(sets(group) * kBoundQueries);
    rest = arena.take<char>(kBoundRows * row_bytes(Storage::int8, dim));
  }

  // q: [group, padded dim]
  void pack(const float* q, int group, int dim) {
    __builtin_memset(columns, 0, (int64_t)sets(group) * 16 * dim);
    for (int g = 0; g < sets(group) * kBoundQueries; g++) {
      const bool is_there = g < group;
      idle[g] = is_there ? 0.0f : -__builtin_inff();
      scales[g] = is_there ? pack_query(q + (int64_t)g * padded(dim), dim, g) : 0.0f;
    }
  }

 private:
  // Returns the scale, NaN where a number is none.
  float pack_query(const float* q, int dim, int g) {
    const float largest = largest_of(q, dim);
    const F factor = broadcast(largest > 0.0f && largest < __builtin_inff() ? kQuerySteps / largest : 0.0f);
    char* set = columns + (int64_t)(g / kBoundQueries) * 16 * dim + g % kBoundQueries * 4;
    const Bytes carries = _mm512_set1_epi32(0x808080);
    for (int d = 0; d < dim; d += kLanes) {
      const Bytes numbers = _mm512_cvtps_epi32(mul(load(q + d), factor));
      const Bytes terms = _mm512_xor_si512(_mm512_add_epi32(numbers, carries), carries);
      for (int t = 0; t < 3; t++) {
        int32_t fours[kLanes];
        const Bytes order = _mm512_set1_epi32((2 - t) * 0x01010101 + 0x0c080400);
        _mm512_storeu_si512(fours, _mm512_shuffle_epi8(terms, order));
        for (int n = 0; n < 4; n++) __builtin_memcpy(set + 16 * d + n * 64 + t * 16, fours + 4 * n, 4);
      }
    }
    return largest / kQuerySteps;
  }
};

// The highest of the scores in each quarter of a register, in its first lane. NaN is lower than any number.
KVASIR_INLINE F highest_of_quarters(F x) {
  const F numbers = _mm512_mask_blend_ps(_mm512_cmp_ps_mask(x, x, _CMP_ORD_Q), broadcast(-__builtin_inff()), x);
  const F pairs = max(numbers, _mm512_permute_ps(numbers, 0xb1));
  return max(pairs, _mm512_permute_ps(pairs, 0x4e));
}

// sums[16, 16]: of 16 rows, for the terms of four queries. highest[0 .. 16) are raised to the highest score of each row.
KVASIR_INLINE void raise_highest(const int32_t* sums, const char* rows, int64_t row, int dim, F scales, F idle,
                                 float* highest) {
  const Bytes quads = _mm512_set_epi32(3, 3, 3, 3, 2, 2, 2, 2, 1, 1, 1, 1, 0, 0, 0, 0);
  for (int i = 0; i < kBoundRows; i += 4) {
    F x[4];
    float of_rows[4];
    for (int n = 0; n < 4; n++) {
      x[n] = _mm512_cvtepi32_ps(_mm512_load_si512(sums + (i + n) * kLanes));
      __builtin_memcpy(of_rows + n, rows + (i + n) * row + dim, 4);
    }
    turn_quarters(x);
    const F whole = fma(x[0], broadcast(65536.0f), fma(x[1], broadcast(256.0f), x[2]));
    const F each = _mm512_permutexvar_ps(quads, _mm512_castps128_ps512(_mm_loadu_ps(of_rows)));
    const F best = highest_of_quarters(add(mul(mul(whole, scales), each), idle));
    const __m128 four = _mm512_castps512_ps128(_mm512_maskz_compress_ps(0x1111, best));
    _mm_storeu_ps(highest + i, _mm_max_ps(four, _mm_loadu_ps(highest + i)));
  }
}

// Of kTiles times 16 rows, `row` bytes each, for the queries of one set: several products are under way at a time.
template <int kTiles>
static void score_tile(const char* rows, int64_t row, int dim, const char* columns, F scales, F idle, float* highest) {
  alignas(64) int32_t sums[kTiles][kBoundRows * kLanes];
  const int64_t tile = kBoundRows * row;
  _tile_zero(0);
  if (kTiles > 1) {
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
  }
  for (int d = 0; d < dim; d += kBoundDims) {
    _tile_loadd(4, columns + 16 * d, 64);
    _tile_loadd(5, rows + d, row);
    _tile_dpbssd(0, 5, 4);
    if (kTiles > 1) {
      _tile_loadd(6, rows + tile + d, row);
      _tile_dpbssd(1, 6, 4);
      _tile_loadd(5, rows + 2 * tile + d, row);
      _tile_dpbssd(2, 5, 4);
      _tile_loadd(6, rows + 3 * tile + d, row);
      _tile_dpbssd(3, 6, 4);
    }
  }
  _tile_stored(0, sums[0], 64);
  if (kTiles > 1) {
    _tile_stored(1, sums[1], 64);
    _tile_stored(2, sums[2], 64);
    _tile_stored(3, sums[3], 64);
  }
  for (int i = 0; i < kTiles; i++) {
    raise_highest(sums[i], rows + i * tile, row, dim, scales, idle, highest + i * kBoundRows);
  }
}

// Of `count` rows one after the other; highest: [count up to a multiple of 16].
static void score_tiles(const TileQueries& queries, const char* rows, int64_t count, int group, int dim,
                        float* highest) {
  constexpr int kTiles = 4;
  const int64_t row = row_bytes(Storage::int8, dim);
  for (int64_t j = 0; j < count;) {
    const bool are_many = count - j >= kTiles * kBoundRows;
    const char* at = rows + j * row;
    if (count - j < kBoundRows) {
      __builtin_memset(queries.rest, 0, kBoundRows * row);
      __builtin_memcpy(queries.rest, at, (count - j) * row);
      at = queries.rest;
    }
    for (int s = 0; s < TileQueries::sets(group); s++) {
      const char* columns = queries.columns + (int64_t)s * 16 * dim;
      const F scales = _mm512_broadcast_f32x4(_mm_loadu_ps(queries.scales + s * kBoundQueries));
      const F idle = _mm512_broadcast_f32x4(_mm_loadu_ps(queries.idle + s * kBoundQueries));
      if (are_many) score_tile<kTiles>(at, row, dim, columns, scales, idle, highest + j);
      else score_tile<1>(at, row, dim, columns, scales, idle, highest + j);
    }
    j += are_many ? kTiles * kBoundRows : kBoundRows;
  }
}

#else

// No such unit.
struct TileQueries {
  static constexpr bool takes(Storage, int) { return false; }
  void place(Arena&, int, int) {}
  void pack(const float*, int, int) {}
};
static void score_tiles(const TileQueries&, const char*, int64_t, int, int, float*) {}

#endif

}  // namespace KVASIR_ISA
}  // namespace kvasir

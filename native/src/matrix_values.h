// Weighted sums of rows of int8 and int4 for four and eight query heads on the matrix unit (AMX): of 64 rows, interleaved by
// fours, 16 dims are one register; the weights of four heads as integers, three bytes of one scale, are the rows of another.
#pragma once
#include "int_values.h"
#include "matrix_keys.h"

namespace kvasir {
namespace KVASIR_ISA {

constexpr int kRegisterRows = 64;  // rows of a block that meet a register of weights
constexpr int kBlockRegisters = kBlockRows / kRegisterRows;
static_assert(kBlockRows % kRegisterRows == 0, "");

// The weights of a block: registers [64 rows, sets]; row 4 t + g of a register is term t of head g, for fours of rows in the
// order of `place_of_quad`.
template <int kSets>
struct SetWeights {
  alignas(64) int32_t registers[kBlockRegisters][kSets][kEdge][kEdge];
  float steps[kSets * kSetHeads];

  // Returns false where the weights can't be integers.
  bool split(const float* weights, const F* scales) {
    for (int g = 0; g < kSets * kSetHeads; g++) {
      IntWeights ints;
      if (!split_block(weights + g * kBlockRows, scales, &ints)) return false;
      steps[g] = ints.step;
      for (int r = 0; r < kBlockRegisters; r++) {
        Bytes terms[4];
        KVASIR_UNROLL
        for (int n = 0; n < 4; n++) terms[n] = _mm512_load_si512(ints.terms[r * kEdge + 4 * n]);
        turn_lanes(terms);
        int32_t(*to)[kEdge] = registers[r][g / kSetHeads] + g % kSetHeads;
        KVASIR_UNROLL
        for (int t = 0; t < 4; t++) _mm512_store_si512(to[4 * t], terms[t]);
      }
    }
    return true;
  }
};

// Which row of a register of values four rows become, so that they meet their weights.
KVASIR_INLINE int place_of_quad(int quad) { return quad % 4 * 4 + quad / 4; }

// Interleaves a chunk of up to 64 rows: [16 fours of rows, 4 times 16 dims] of bytes, and as much again for the high halves.
// Fours of rows that are not there keep what was there before: their weights are 0.
template <typename X, bool kAhead, bool kWhole>
static void interleave_chunk(const char* const* rows, const char* const* ahead, int quads, int at, int dim, char* to) {
  const int bytes = code_bytes<X>(dim);
  const bool asks_for_scales = kAhead && at + kChunk >= bytes;
  for (int quad = 0; quad < quads; quad++, rows += 4, ahead += 4) {
    if (kAhead) prefetch_chunks<4>(ahead, at);
    if (asks_for_scales) prefetch_chunks<4>(ahead, scale_offset(X::kStorage, dim));
    Bytes codes[4];
    KVASIR_UNROLL
    for (int i = 0; i < 4; i++) codes[i] = kWhole ? _mm512_loadu_si512(rows[i] + at) : load_chunk(rows[i], at, bytes);
    interleave(codes);
    char* place = to + place_of_quad(quad) * 4 * kChunk;
    KVASIR_UNROLL
    for (int n = 0; n < 4; n++) store_codes<X>(codes[n], place + n * kChunk, 4 * kRegister);
  }
}

KVASIR_INLINE void clear_registers() {
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
}

KVASIR_INLINE void store_registers(int32_t (*sums)[kEdge * kEdge]) {
  _tile_stored(0, sums[0], kChunk);
  _tile_stored(1, sums[1], kChunk);
  _tile_stored(2, sums[2], kChunk);
  _tile_stored(3, sums[3], kChunk);
}

// sums[dims, sets] = weights times values for 64 dims: registers of 16 rows of which 12 are used.
template <int kSets>
KVASIR_INLINE void multiply_weights(const SetWeights<kSets>& weights, const char* values, int64_t next, int count,
                                    int32_t (*sums)[kEdge * kEdge]) {
  constexpr int kApart = 4 * kChunk;
  for (int n = 0; n < 4; n += 4 / kSets) {
    clear_registers();
    for (int r = 0; r < count; r++) {
      const char* at = values + r * next + n * kChunk;
      _tile_loadd(6, weights.registers[r][0], kChunk);
      if (kSets == 2) _tile_loadd(7, weights.registers[r][kSets - 1], kChunk);
      _tile_loadd(4, at, kApart);
      _tile_dpbusd(0, 6, 4);
      if (kSets == 2) _tile_dpbusd(1, 7, 4);
      _tile_loadd(5, at + kChunk, kApart);
      if (kSets == 2) {
        _tile_dpbusd(2, 6, 5);
        _tile_dpbusd(3, 7, 5);
        continue;
      }
      _tile_dpbusd(1, 6, 5);
      _tile_loadd(4, at + 2 * kChunk, kApart);
      _tile_dpbusd(2, 6, 4);
      _tile_loadd(5, at + 3 * kChunk, kApart);
      _tile_dpbusd(3, 6, 5);
    }
    store_registers(sums + n * kSets);
  }
}

// out[g, e] += sums for 64 dims, `count` of which are there.
template <int kSets>
KVASIR_INLINE void add_sums(const int32_t (*sums)[kEdge * kEdge], const float* steps, float* out, int stride, int count) {
  for (int g = 0; g < kSets * kSetHeads; g++) {
    F x[4];
    KVASIR_UNROLL
    for (int n = 0; n < 4; n++) {
      const int32_t* of_head = sums[n * kSets + g / kSetHeads] + g % kSetHeads * kEdge;
      x[n] = joined(_mm512_load_si512(of_head), _mm512_load_si512(of_head + 4 * kEdge), _mm512_load_si512(of_head + 8 * kEdge));
    }
    turn_quarters(x);
    add_to_row(out + g * stride, x, broadcast(steps[g]), count);
  }
}

// Returns false where the weights are such that it has to be done otherwise; nothing has happened then.
template <typename X, int kSets, bool kAhead>
static bool add_sets(const DecodeRows& rows, const char* const* ahead, const float* weights, float* out, int dim) {
  constexpr int kHalves = kHasHalves<X> ? 2 : 1;
  constexpr int64_t kValueBytes = kHalves * 4 * kRegister;
  F scales[kBlockRows / kLanes];
  block_scales<X>(rows.values, rows.count, dim, scales);
  SetWeights<kSets> split;
  if (!split.split(weights, scales)) return false;
  const int bytes = code_bytes<X>(dim), stride = padded(dim), registers = (rows.count + kRegisterRows - 1) / kRegisterRows;
  alignas(64) char values[kBlockRegisters * kValueBytes];
  alignas(64) int32_t sums[kHalves][4 * kSets][kEdge * kEdge];
  const auto prepare = [&](int at) __attribute__((always_inline)) {
    for (int r = 0; r < registers; r++) {
      const int j = r * kRegisterRows, left = (rows.count - j + 3) / 4, quads = left < kEdge ? left : kEdge;
      const auto chunk = at + kChunk <= bytes ? interleave_chunk<X, kAhead, true> : interleave_chunk<X, kAhead, false>;
      chunk(rows.values + j, ahead + j, quads, at, dim, values + r * kValueBytes);
    }
  };
  prepare(0);
  for (int at = 0; at < bytes; at += kChunk) {
    for (int half = 0; half < kHalves; half++) {
      multiply_weights<kSets>(split, values + half * 4 * kRegister, kValueBytes, registers, sums[half]);
    }
    // The sums are ready once the next rows are.
    if (at + kChunk < bytes) prepare(at + kChunk);
    for (int half = 0; half < kHalves; half++) {
      const int first = at + half * bytes, end = half ? dim : bytes;
      add_sums<kSets>(sums[half], split.steps, out + first, stride, end - first);
    }
  }
  return true;
}

}  // namespace KVASIR_ISA
}  // namespace kvasir

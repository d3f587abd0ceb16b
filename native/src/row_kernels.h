// For each storage type the inner loops over rows that suit the processor: those of row_loops.h, or products of integers, or
// of whole registers on a matrix unit. Everything above them is the same for all types.
#pragma once
#include "row_loops.h"

#if defined(__AVX512VNNI__)
#include "int_keys.h"
#include "int_values.h"
#elif defined(__AVX2__) && !defined(__AVX512F__)
#include "nibble_keys.h"
#include "nibble_values.h"
#endif
#if defined(KVASIR_AMX)
#include "matrix_keys.h"
#include "matrix_values.h"
#endif

namespace kvasir {
namespace KVASIR_ISA {

#if defined(KVASIR_AMX)
constexpr bool kHasRegisters = true;
#else
constexpr bool kHasRegisters = false;
#endif
// Whether rows of a storage meet three heads and more as whole registers of the matrix unit.
constexpr bool fills_registers(Storage storage) {
  return kHasRegisters && (storage == Storage::int8 || storage == Storage::int4);
}

using ScoreRows = void (*)(const DecodeRows&, const PackedQuery& query, int head_dim, float* scores);
using AddRows = void (*)(const DecodeRows&, const char* const* ahead, const float* weights, float* out, int value_dim);
using PackQueries = void (*)(const float* q, int head_dim, char* packed);  // [heads, padded D] to [heads, packed_bytes]

// Query heads that meet a block together at most: widening a row costs less, the more heads share it.
constexpr int kMostHeads = 8;

// What going through rows once more costs, in query heads: widening them again, above all. From the times of 3 to 8 heads
// (docs/decisions/0002-kernels.md).
constexpr float pass_cost(Storage storage) {
  if (fills_registers(storage)) return 3.5f;
  if (kLanes == 16) return storage == Storage::int4 && kHasByteProducts ? 0.75f : 1.5f;
  if (kLanes == 8) return storage == Storage::e4m3 ? 1.5f : 0.5f;
  return storage == Storage::f32 ? 0.5f : storage == Storage::bf16 ? 1.5f : 2.5f;
}

// The power of two of query heads that `count` of them begin with. It may be more than there are: heads that do nothing
// are cheaper than more passes then.
static inline int log_heads(int count, Storage storage) {
  if (count >= kMostHeads) return 3;
  const int log = count >= 4 ? 2 : count >= 2 ? 1 : 0, more_passes = __builtin_popcount(count) - 1;
  return more_passes * pass_cost(storage) > (2 << log) - count ? log + 1 : log;
}

// Places for a group of heads and those that do nothing.
static inline int head_places(int group) {
  const int rest = group % kMostHeads;
  return group - rest + (rest > 4 ? 8 : rest > 2 ? 4 : rest);
}

// For 1, 2, 4 and 8 query heads at once (by log2); `score` and `add` without and with asking ahead.
struct RowKernels {
  ScoreRows score[4][2];
  AddRows add[4][2];
  PackQueries pack[4];  // null: queries are taken as floats
  void (*widen)(float* to, const char* from, int dim);
  float (*widen_codes)(float* to, const char* from, int dim);
};

template <typename X>
constexpr RowKernels row_kernels_of() {
  constexpr bool kAhead = !kAsksByLoading;  // keys come in the order of memory by themselves
#if defined(__AVX512F__)
  constexpr PackQueries kPackEight = arrange;
#else
  constexpr PackQueries kPackEight = nullptr;
#endif
  return {
      {{score_rows<X, 1, false>, score_rows<X, 1, true>},
       {score_rows<X, 2, false>, score_rows<X, 2, true>},
       {score_rows<X, 4, false>, score_rows<X, 4, true>},
       {score_rows<X, 8, false>, score_rows<X, 8, true>}},
      {{add_rows<X, 1, false>, add_rows<X, 1, kAhead>},
       {add_rows<X, 2, false>, add_rows<X, 2, kAhead>},
       {add_rows<X, 4, false>, add_rows<X, 4, kAhead>},
       {add_rows<X, 8, false>, add_rows<X, 8, kAhead>}},
      {nullptr, nullptr, nullptr, kPackEight},
      widen_any_row<X>,
      widen_codes<X>,
  };
}

// Four heads and more by the matrix unit, where there is one: rows need no widening then.
#if defined(KVASIR_AMX)

template <typename X, int kSets, bool kAhead>
static void add_sets_or_floats(const DecodeRows& rows, const char* const* ahead, const float* weights, float* out, int dim) {
  if (add_sets<X, kSets, kAhead>(rows, ahead, weights, out, dim)) return;
  add_rows<X, kSets * kSetHeads, kAhead>(rows, ahead, weights, out, dim);
}

template <typename X, int kLog>
constexpr void use_sets(RowKernels* kernels) {
  constexpr int kSets = (1 << kLog) / kSetHeads;
  kernels->score[kLog][0] = score_sets<X, kSets, false>;
  kernels->score[kLog][1] = score_sets<X, kSets, true>;
  kernels->add[kLog][0] = add_sets_or_floats<X, kSets, false>;
  kernels->add[kLog][1] = add_sets_or_floats<X, kSets, true>;
  kernels->pack[kLog] = pack_sets<X, kSets>;
}

template <typename X>
constexpr void use_registers(RowKernels* kernels) {
  use_sets<X, 2>(kernels);
  use_sets<X, 3>(kernels);
}

#else

template <typename X>
constexpr void use_registers(RowKernels*) {}

#endif

#if defined(__AVX512VNNI__)

template <typename X, int kGroup>
static void pack_each(const float* q, int head_dim, char* packed) {
  for (int g = 0; g < kGroup; g++) {
    pack_ints<X>(q + (int64_t)g * padded(head_dim), head_dim, packed + g * packed_bytes(head_dim));
  }
}

// More than four heads at once do not fit in registers.
template <typename X, int kGroup, bool kAhead>
static void score_few_ints(const DecodeRows& rows, const PackedQuery& query, int dim, float* scores) {
  if constexpr (kGroup <= 4) {
    score_ints<X, kGroup, kAhead>(rows, query, dim, scores);
  } else {
    score_ints<X, 4, kAhead>(rows, query, dim, scores);
    score_ints<X, 4, false>(rows, {query.at + 4 * query.stride, query.stride}, dim, scores + 4 * kBlockRows);
  }
}

template <typename X, int kGroup, bool kAhead>
static void add_ints_or_floats(const DecodeRows& rows, const char* const* ahead, const float* weights, float* out, int dim) {
  if (add_ints<X, kGroup, kAhead>(rows, ahead, weights, out, dim)) return;
  add_rows<X, kGroup, kAhead>(rows, ahead, weights, out, dim);
}

template <typename X, int kLog>
constexpr void use_ints(RowKernels* kernels) {
  constexpr int kGroup = 1 << kLog;
  kernels->score[kLog][0] = score_few_ints<X, kGroup, false>;
  kernels->score[kLog][1] = score_few_ints<X, kGroup, true>;
  kernels->add[kLog][0] = add_ints_or_floats<X, kGroup, false>;
  kernels->add[kLog][1] = add_ints_or_floats<X, kGroup, true>;
  kernels->pack[kLog] = pack_each<X, kGroup>;
}

// Products of bytes save widening, which four heads and more share: of int8 it then costs less than turning the bytes.
constexpr RowKernels int8_kernels() {
  RowKernels kernels = row_kernels_of<Int8>();
  use_ints<Int8, 0>(&kernels);
  use_ints<Int8, 1>(&kernels);
  use_registers<Int8>(&kernels);
  return kernels;
}

constexpr RowKernels int4_kernels() {
  RowKernels kernels = row_kernels_of<Int4>();
  use_ints<Int4, 0>(&kernels);
  use_ints<Int4, 1>(&kernels);
  use_ints<Int4, 2>(&kernels);
  use_ints<Int4, 3>(&kernels);
  use_registers<Int4>(&kernels);
  return kernels;
}

#elif defined(__AVX2__) && !defined(__AVX512F__)

template <int kGroup>
static void pack_each(const float* q, int head_dim, char* packed) {
  for (int g = 0; g < kGroup; g++) {
    pack_nibbles(q + (int64_t)g * padded(head_dim), head_dim, packed + g * packed_bytes(head_dim));
  }
}

// More than four heads at once do not fit in registers.
template <int kGroup, bool kAhead, bool kWhole>
static void score_few_nibbles(const DecodeRows& rows, const PackedQuery& query, int dim, float* scores) {
  constexpr int kFew = kGroup < 4 ? kGroup : 4;
  score_nibbles<kFew, kAhead, kWhole>(rows, query, dim, scores);
  if (kGroup == kFew) return;
  score_nibbles<kFew, false, kWhole>(rows, {query.at + 4 * query.stride, query.stride}, dim, scores + 4 * kBlockRows);
}

template <int kGroup, bool kAhead>
static void score_any_nibbles(const DecodeRows& rows, const PackedQuery& query, int dim, float* scores) {
  if (ends_whole(dim)) score_few_nibbles<kGroup, kAhead, true>(rows, query, dim, scores);
  else score_few_nibbles<kGroup, kAhead, false>(rows, query, dim, scores);
}

template <int kGroup, bool kAhead>
static void add_nibbles_or_floats(const DecodeRows& rows, const char* const* ahead, const float* weights, float* out, int dim) {
  if (ends_whole(dim) ? add_nibbles<kGroup, kAhead, true>(rows, ahead, weights, out, dim)
                      : add_nibbles<kGroup, kAhead, false>(rows, ahead, weights, out, dim)) {
    return;
  }
  add_rows<Int4, kGroup, kAhead>(rows, ahead, weights, out, dim);
}

template <int kLog>
constexpr void use_nibbles(RowKernels* kernels) {
  constexpr int kGroup = 1 << kLog;
  kernels->score[kLog][0] = score_any_nibbles<kGroup, false>;
  kernels->score[kLog][1] = score_any_nibbles<kGroup, true>;
  kernels->add[kLog][0] = add_nibbles_or_floats<kGroup, false>;
  kernels->add[kLog][1] = add_nibbles_or_floats<kGroup, true>;
  kernels->pack[kLog] = pack_each<kGroup>;
}

constexpr RowKernels int8_kernels() { return row_kernels_of<Int8>(); }

constexpr RowKernels int4_kernels() {
  RowKernels kernels = row_kernels_of<Int4>();
  use_nibbles<0>(&kernels);
  use_nibbles<1>(&kernels);
  use_nibbles<2>(&kernels);
  use_nibbles<3>(&kernels);
  return kernels;
}

#else

constexpr RowKernels int8_kernels() { return row_kernels_of<Int8>(); }
constexpr RowKernels int4_kernels() { return row_kernels_of<Int4>(); }

#endif

// By storage.
static const RowKernels kRowKernels[] = {
    row_kernels_of<float>(), row_kernels_of<Half>(), row_kernels_of<Brain>(), int8_kernels(),
    row_kernels_of<E4m3>(), row_kernels_of<E5m2>(), int4_kernels(),
};

}  // namespace KVASIR_ISA
}  // namespace kvasir

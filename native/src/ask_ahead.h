// Asking memory for rows before they are needed, so that it works while the block before is computed: values while keys are
// multiplied, the keys of the next block while values are summed. K and V are taken to be of one type; where they are not,
// too much or too little is asked for.
#pragma once
#include "rows.h"

namespace kvasir {
namespace KVASIR_ISA {

// For what one vector of a row will need, once for each cache line.
template <typename X>
static inline void prefetch_vector(const char* row, int vector) {
  constexpr int kBytes = kLanes * sizeof(X);  // of a vector: a quantized type is empty, of size 1
  if (vector * kBytes % 64 < kBytes) __builtin_prefetch(row + vector * kBytes, 0, 2);
}

// WebAssembly can only ask by loading (simd_vec4.h): processors don't go on past the loads that they wait for as they do
// past prefetches, so what is asked for has to be what their own prefetchers bring along, memory in its order.
#if defined(__wasm_simd128__)
constexpr bool kAsksByLoading = true;
#else
constexpr bool kAsksByLoading = false;
#endif

// Asks for a few rows of `row_bytes`, some lines at each step: in the order of memory where one row follows the other,
// else for all of them before the first step.
template <int kRows, bool kWalks>
struct LineWalk {
  const char* at;
  int step;

  LineWalk(const char* const* rows, int row_bytes) {
    if (!kWalks) return;
    at = rows[0];
    step = 64 * kRows;
    const int64_t span = rows[kRows - 1] - at, gap = span - (int64_t)(kRows - 1) * row_bytes;
    if (gap >= 0 && gap <= 64 * (kRows - 1)) return;
    step = 0;
    for (int i = 0; i < kRows; i++) {
      for (int line = 0; line < row_bytes; line += 64) __builtin_prefetch(rows[i] + line, 0, 2);
    }
  }

  void ask() {
    for (int i = 0; i < kRows; i++) __builtin_prefetch(at + 64 * i, 0, 2);
    at += step;
  }
};

// On AVX2 what is asked for comes in the order of memory in both phases, at the pace at which the block at hand is gone
// through: processors' own prefetchers then bring more at a time than instructions can ask for (docs/decisions/0002).
template <typename X>
constexpr bool asks_in_order() {
  return kLanes == 8 && !is_quantized_type<X>();
}

// Rows that are asked for while as many of the block at hand are gone through, each of `vectors`.
struct RowWalk {
  const char* const* rows;
  int left, row_bytes, vectors;  // left: how many rows
  int passed = 0;                // vectors since the last row was asked for

  // So many vectors further.
  void pass(int count) {
    for (passed += count; passed >= vectors && left > 0; passed -= vectors, left--) {
      const char* row = *rows++;
      for (int at = 0; at < row_bytes; at += 64) __builtin_prefetch(row + at, 0, 2);
    }
  }
};

template <typename X>
static RowWalk row_walk(const char* const* rows, int count, int dim) {
  return {rows, count, dim * (int)sizeof(X), vectors_of(dim)};
}

}  // namespace KVASIR_ISA
}  // namespace kvasir

// Products of f32 matrices for a tile of queries. What has a column for each query lies in panels as wide as the register
// tile, so that a panel is one run of memory.
#pragma once
#include "math.h"

namespace kvasir {
namespace KVASIR_ISA {

constexpr int kStripQueries = 64;              // columns of a strip, a multiple of kPanel
constexpr int kPanel = kTileVectors * kLanes;  // columns of a register tile

// Element (row, m) of a matrix of `rows` rows and 64 columns in panels.
static inline float* panel_at(float* panels, int64_t rows, int64_t row, int m) {
  return panels + m / kPanel * rows * kPanel + row * kPanel + m % kPanel;
}

// a(i, k) = at[i * row_step + k * inner_step].
struct Left {
  const float* at;
  int64_t row_step, inner_step;
};

// c[i, n] (+)= sum_k a(i, k) b[k, n] for kRows rows from i on and kVectors vectors; rows of b and c are kPanel apart.
template <int kRows, int kVectors, bool kAccumulate>
static inline void multiply_tile(const Left& a, int i, const float* b, int inner, float* c) {
  if (inner <= 0) __builtin_unreachable();
  const float* left = a.at + i * a.row_step;
  c += i * kPanel;
  F sum[kRows][kVectors];
  for (int r = 0; r < kRows; r++) {
    for (int n = 0; n < kVectors; n++) sum[r][n] = kAccumulate ? load(c + r * kPanel + n * kLanes) : zero();
  }
  // Fewer instructions than one step at a time.
#pragma GCC unroll 2
  for (int k = 0; k < inner; k++, left += a.inner_step, b += kPanel) {
    F right[kVectors];
    for (int n = 0; n < kVectors; n++) right[n] = load(b + n * kLanes);
    for (int r = 0; r < kRows; r++) {
      const F factor = broadcast(left[r * a.row_step]);
      for (int n = 0; n < kVectors; n++) sum[r][n] = fma(factor, right[n], sum[r][n]);
    }
  }
  for (int r = 0; r < kRows; r++) {
    for (int n = 0; n < kVectors; n++) store(c + r * kPanel + n * kLanes, sum[r][n]);
  }
}

template <int kVectors, bool kAccumulate>
static void multiply_vectors(const Left& a, const float* b, int rows, int inner, float* c) {
  int i = 0;
  for (; i + kTileRows <= rows; i += kTileRows) multiply_tile<kTileRows, kVectors, kAccumulate>(a, i, b, inner, c);
  if (kTileRows > 4 && rows - i >= 4) multiply_tile<4, kVectors, kAccumulate>(a, i, b, inner, c), i += 4;
  if (rows - i >= 2) multiply_tile<2, kVectors, kAccumulate>(a, i, b, inner, c), i += 2;
  if (rows - i >= 1) multiply_tile<1, kVectors, kAccumulate>(a, i, b, inner, c);
}

// c [rows, columns] (+)= a [rows, inner] b [inner, columns]; panels of b have b_rows rows, those of c c_rows; `columns` is
// a multiple of kLanes.
template <bool kAccumulate>
static void multiply(const Left& a, const float* b, int64_t b_rows, int rows, int inner, int columns, float* c,
                     int64_t c_rows) {
  for (int n = 0; n < columns; n += kPanel, b += b_rows * kPanel, c += c_rows * kPanel) {
    int vectors = (columns - n) / kLanes, done = 0;
    if (vectors >= kTileVectors) {
      multiply_vectors<kTileVectors, kAccumulate>(a, b, rows, inner, c);
      continue;
    }
    for (; vectors - done >= 2; done += 2) {
      multiply_vectors<2, kAccumulate>(a, b + done * kLanes, rows, inner, c + done * kLanes);
    }
    if (done < vectors) multiply_vectors<1, kAccumulate>(a, b + done * kLanes, rows, inner, c + done * kLanes);
  }
}

}  // namespace KVASIR_ISA
}  // namespace kvasir

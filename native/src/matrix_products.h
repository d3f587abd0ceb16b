// Products of bf16 numbers with f32 sums, of operands that lie in memory as tile registers: on AMX, or with the dot
// products of AVX512-BF16.
#pragma once
#include "math.h"

namespace kvasir {
namespace KVASIR_ISA {

constexpr int kEdge = 16, kDepth = 32;  // of a tile register: 16 rows of 32 bf16 numbers, or of 16 f32 sums
constexpr int kRegister = 1024;         // bytes of a tile register: 16 rows of 64

// Registers [terms, ...]: the first, and the distances, in bytes, to the next term, to the next step along the depth, and
// to the register beside. Of the left operand a register is 16 rows x 32 of depth, of the right one 16 pairs of depth x 16
// columns.
struct Operand {
  const char* at;
  int64_t term, step, beside;
};

// How many terms the operands have, and which products of terms i and j are made: those up to i + j = last.
struct Terms {
  int a, b, last;

  // The product, exact but for the rounding of sums.
  static Terms all(int a, int b) { return {a, b, a + b - 2}; }
  // Without what is below the last bit that the rounded ones of the two have.
  static Terms rounded(int a, int b) { return {a, b, (a > b ? a : b) - 1}; }

  int products() const {
    int count = 0;
    for (int i = 0; i < a; i++) {
      for (int j = 0; j < b; j++) count += i + j <= last;
    }
    return count;
  }
};

#if defined(KVASIR_AMX)

constexpr int kMostProducts = 4;  // that pay beside multiply-adds of f32 (docs/decisions/0004-matrix-units.md)

// The tile registers of this thread, for as long as it lives. They are saved and restored with the thread: whoever has no use
// for them should not claim them.
struct MatrixUnit {
  const bool is_claimed;
  explicit MatrixUnit(bool is_wanted = true) : is_claimed(is_wanted) {
    if (!is_wanted) return;
    // Constant: compilers take the instruction for one that reads eight bytes, and may leave the others unwritten.
    struct alignas(64) Configuration {
      uint8_t palette = 1, start_row = 0, reserved[14] = {};
      uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
      uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
    };
    static constexpr Configuration kConfiguration;
    _tile_loadconfig(&kConfiguration);
  }
  ~MatrixUnit() {
    if (is_claimed) _tile_release();
  }
  MatrixUnit(const MatrixUnit&) = delete;
};

template <int kRows, int kColumns, bool kAccumulate>
static inline void load_sums(const char* c, int64_t row) {
  if (!kAccumulate) {
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    return;
  }
  _tile_loadd(0, c, row);
  if (kColumns > 1) _tile_loadd(1, c + 64, row);
  if (kRows > 1) _tile_loadd(2, c + kEdge * row, row);
  if (kRows > 1 && kColumns > 1) _tile_loadd(3, c + kEdge * row + 64, row);
}

template <int kRows, int kColumns>
static inline void store_sums(char* c, int64_t row) {
  _tile_stored(0, c, row);
  if (kColumns > 1) _tile_stored(1, c + 64, row);
  if (kRows > 1) _tile_stored(2, c + kEdge * row, row);
  if (kRows > 1 && kColumns > 1) _tile_stored(3, c + kEdge * row + 64, row);
}

// c [16 kRows, 16 kColumns] = or += the products of the terms of a and b, over `steps` times 32 of depth.
template <int kRows, int kColumns, bool kAccumulate>
static inline void multiply_registers(const Operand& a, const Operand& b, const Terms& terms, int steps, float* sums,
                                      int64_t stride) {
  char* c = (char*)sums;
  load_sums<kRows, kColumns, kAccumulate>(c, stride * 4);
  for (int s = 0; s < steps; s++) {
    // The first term of b, which all terms of a meet, is loaded once where the last of them meet no other.
    for (int i = terms.a - 1, loaded = -1; i >= 0; i--) {
      const char* left = a.at + i * a.term + s * a.step;
      _tile_loadd(4, left, 64);
      if (kRows > 1) _tile_loadd(5, left + a.beside, 64);
      for (int j = 0; j < terms.b && i + j <= terms.last; j++) {
        const char* right = b.at + j * b.term + s * b.step;
        if (j != loaded) {
          _tile_loadd(6, right, 64);
          if (kColumns > 1) _tile_loadd(7, right + b.beside, 64);
          loaded = j;
        }
        _tile_dpbf16ps(0, 4, 6);
        if (kColumns > 1) _tile_dpbf16ps(1, 4, 7);
        if (kRows > 1) _tile_dpbf16ps(2, 5, 6);
        if (kRows > 1 && kColumns > 1) _tile_dpbf16ps(3, 5, 7);
      }
    }
  }
  store_sums<kRows, kColumns>(c, stride * 4);
}

#else

constexpr int kMostProducts = 1;  // a dot product is two multiply-adds at best
struct MatrixUnit {
  explicit MatrixUnit(bool = true) {}
};

// The same for one term each, eight rows at a time.
template <int kRows, int kColumns, bool kAccumulate>
static inline void multiply_registers(const Operand& a, const Operand& b, const Terms&, int steps, float* c, int64_t stride) {
  constexpr int kAtOnce = 8;
  for (int i = 0; i < kRows * kEdge; i += kAtOnce) {
    F sum[kAtOnce][kColumns];
    float* to = c + i * stride;
    for (int row = 0; row < kAtOnce; row++) {
      for (int n = 0; n < kColumns; n++) sum[row][n] = kAccumulate ? load(to + row * stride + n * kEdge) : zero();
    }
    for (int s = 0; s < steps; s++) {
      const char *left = a.at + s * a.step + i / kEdge * a.beside + i % kEdge * 64, *right = b.at + s * b.step;
      for (int pair = 0; pair < kEdge; pair++) {
        __m512bh columns[kColumns];
        for (int n = 0; n < kColumns; n++) columns[n] = (__m512bh)_mm512_loadu_si512(right + n * b.beside + pair * 64);
        for (int row = 0; row < kAtOnce; row++) {
          int32_t both;
          __builtin_memcpy(&both, left + row * 64 + pair * 4, 4);
          const __m512bh numbers = (__m512bh)_mm512_set1_epi32(both);
          for (int n = 0; n < kColumns; n++) sum[row][n] = _mm512_dpbf16_ps(sum[row][n], numbers, columns[n]);
        }
      }
    }
    for (int row = 0; row < kAtOnce; row++) {
      for (int n = 0; n < kColumns; n++) store(to + row * stride + n * kEdge, sum[row][n]);
    }
  }
}

#endif

// c [rows, columns] = or += a b, in whole tile registers; `stride` in numbers.
template <bool kAccumulate>
static void multiply_terms(const Operand& a, const Operand& b, const Terms& terms, int rows, int columns, int steps, float* c,
                           int64_t stride) {
  for (int n = 0; n < columns / kEdge; n += 2) {
    const bool two_columns = columns / kEdge - n > 1;
    Operand right = b;
    right.at += n * b.beside;
    for (int m = 0; m < rows / kEdge; m += 2) {
      const bool two_rows = rows / kEdge - m > 1;
      Operand left = a;
      left.at += m * a.beside;
      float* to = c + m * kEdge * stride + n * kEdge;
      if (two_rows && two_columns) multiply_registers<2, 2, kAccumulate>(left, right, terms, steps, to, stride);
      else if (two_rows) multiply_registers<2, 1, kAccumulate>(left, right, terms, steps, to, stride);
      else if (two_columns) multiply_registers<1, 2, kAccumulate>(left, right, terms, steps, to, stride);
      else multiply_registers<1, 1, kAccumulate>(left, right, terms, steps, to, stride);
    }
  }
}

}  // namespace KVASIR_ISA
}  // namespace kvasir

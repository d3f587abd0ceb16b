// Matrix products of a tile on a unit that multiplies bf16 (AMX, or the dot products of AVX512-BF16), without the
// precision of bf16: a number is split into a sum of bf16 numbers (f32: three, f16: two, bf16: one), and products of two
// sums are made term by term, leaving out those below the last bit. Sums are f32. Where a block holds infinities or NaN,
// which don't split, or where so many products would take longer than those of f32, the caller takes its own way.
#pragma once
#include "row_kernels.h"
#include "tile_products.h"

namespace kvasir {
namespace KVASIR_ISA {

constexpr int kTileBlock = 128;  // rows of a tile step
using TileRows = VisibleRows<kTileBlock, true>;

// Rows [begin, end) of a block; `begin` is a multiple of 32. all_visible: to every query in question.
struct RowRange {
  int begin, end;
  bool all_visible;
};

}  // namespace KVASIR_ISA
}  // namespace kvasir

#if defined(KVASIR_AMX) || defined(KVASIR_BF16_DOT)
#include "matrix_operands.h"
#else

namespace kvasir {
namespace KVASIR_ISA {

// No such unit.
struct MatrixUnit {
  explicit MatrixUnit(bool = true) {}
};
struct MatrixQueries {};
struct MatrixTile {
  bool keys_packed = false, values_packed = false;
  void place(const AttendArgs&, Arena&) {}
  void place_queries(Arena&, MatrixQueries*) const {}
  void pack_queries(const AttendArgs&, const float*, int, MatrixQueries*) const {}
  void pack_rows(const AttendArgs&, const TileRows&) {}
  bool score(const MatrixQueries&, const RowRange&, int, float*) const { return false; }
  void put_weights(int, int, F, F) const {}
  void end_weights(int, int) const {}
  void add(const RowRange&, int, float*) const {}
};

}  // namespace KVASIR_ISA
}  // namespace kvasir

#endif

// Queries in the form that the rows of a storage want to meet them in: as they are, or packed. Packing costs about as much
// as a few rows, so it is done once for a run of rows of one storage.
#pragma once
#include "row_kernels.h"

namespace kvasir {
namespace KVASIR_ISA {

// The queries of a group, and what was made of them last.
struct PackedQueries {
  const float* q;  // [G, padded D], turned and scaled
  char* packed;    // [G, packed_bytes]
  int group, head_dim;
  int storage;     // -1: none yet

  static int64_t bytes(int group, int head_dim) { return kPacksQueries ? (int64_t)group * packed_bytes(head_dim) : 0; }
  static PackedQueries over(const float* q, char* packed, int group, int head_dim) {
    return PackedQueries{q, packed, group, head_dim, -1};
  }

  // The queries from `first` on for rows of `wanted`.
  PackedQuery from(int first, Storage wanted) {
    const auto pack = kRowKernels[(int)wanted].pack;
    if (!pack) return {(const char*)(q + (int64_t)first * padded(head_dim)), 4 * padded(head_dim)};
    const int64_t stride = packed_bytes(head_dim);
    for (int g = 0; g < group && storage != (int)wanted; g++) {
      pack(q + (int64_t)g * padded(head_dim), head_dim, packed + g * stride);
    }
    storage = (int)wanted;
    return {packed + first * stride, stride};
  }
};

}  // namespace KVASIR_ISA
}  // namespace kvasir

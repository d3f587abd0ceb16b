// Queries in the form that the rows of a storage want to meet them in: as they are, packed one by one, or eight arranged
// together. That costs about as much as a few rows, so it is done once for a run of rows of one storage.
#pragma once
#include "matrix_unit.h"

namespace kvasir {
namespace KVASIR_ISA {

// Whether rows of a call are met by the matrix unit when few tokens look at them.
static inline bool wants_registers(const AttendArgs& args) {
  bool any = false;
  for (int s = 0; s < args.num_segments; s++) {
    any = any || fills_registers(args.segments[s].key_storage) || fills_registers(args.segments[s].value_storage);
  }
  return any && args.num_heads / args.num_kv_heads > 2;
}

// Queries of the heads that do nothing.
static void clear_idle_queries(float* q, int group, int head_dim) {
  const int64_t stride = padded(head_dim);
  __builtin_memset(q + group * stride, 0, 4 * stride * (head_places(group) - group));
}

// The queries of a group, and what was made of them last.
struct PackedQueries {
  const float* q;  // [places, padded D], turned and scaled; zeros from G on
  char* packed;    // [places, packed_bytes]
  int group, head_dim;
  int storage;     // -1: none yet

  static int64_t bytes(int group, int head_dim) { return (int64_t)head_places(group) * packed_bytes(head_dim); }
  static PackedQueries over(const float* q, char* packed, int group, int head_dim) {
    return PackedQueries{q, packed, group, head_dim, -1};
  }

  // The 2^log_count queries from `first` on for rows of `wanted`.
  PackedQuery from(int first, int log_count, Storage wanted) {
    const RowKernels& kernels = kRowKernels[(int)wanted];
    if (storage != (int)wanted) pack(kernels, wanted);
    storage = (int)wanted;
    const int64_t stride = packed_bytes(head_dim);
    if (kernels.pack[log_count]) return {packed + first * stride, stride};
    return {(const char*)(q + (int64_t)first * padded(head_dim)), 4 * padded(head_dim)};
  }

 private:
  void pack(const RowKernels& kernels, Storage wanted) {
    for (int first = 0, log; first < group; first += 1 << log) {
      log = log_heads(group - first, wanted);
      if (!kernels.pack[log]) continue;
      kernels.pack[log](q + (int64_t)first * padded(head_dim), head_dim, packed + first * packed_bytes(head_dim));
    }
  }
};

}  // namespace KVASIR_ISA
}  // namespace kvasir

// Which instruction sets this binary holds and this processor has, best first.
#pragma once
#include "kvasir/kernels.h"

namespace kvasir {
namespace vec4 {
extern const KernelTable table;
}
#if defined(KVASIR_X64)
namespace avx2 {
extern const KernelTable table;
}
namespace avx512 {
extern const KernelTable table;
}
#endif

// Fills `tables` (room for 3) and returns how many there are.
inline int available_tables(const KernelTable** tables) {
  int count = 0;
#if defined(KVASIR_X64)
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
      __builtin_cpu_supports("avx512vl")) {
    tables[count++] = &avx512::table;
  }
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c")) {
    tables[count++] = &avx2::table;
  }
#endif
  tables[count++] = &vec4::table;
  return count;
}

}  // namespace kvasir

// Which instruction sets this binary holds and this processor has, best first.
#pragma once
#if defined(KVASIR_X64)
#include <cpuid.h>
#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif
#endif

#include <chrono>

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
namespace avx512vnni {
extern const KernelTable table;
}
namespace avx512bf16 {
extern const KernelTable table;
}
namespace amx {
extern const KernelTable table;
}

// The tile registers of AMX are large, so Linux gives them to a process only on request. Elsewhere they are not used.
inline bool has_amx() {
#if defined(__linux__)
  constexpr int kRequestPermission = 0x1023, kTileData = 18;
  unsigned eax, ebx, ecx, edx;
  if (!__get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx)) return false;
  const bool has_bf16 = edx & (1u << 22), has_tiles = edx & (1u << 24), has_ints = edx & (1u << 25);
  return has_bf16 && has_tiles && has_ints && syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
#else
  return false;
#endif
}

inline bool has_avx512bf16() {
  unsigned eax, ebx, ecx, edx;
  return __get_cpuid_count(7, 1, &eax, &ebx, &ecx, &edx) && (eax & (1u << 5));
}

// Dot products of bf16 do the work of two multiply-adds, but some processors take longer than for two.
inline bool dot_products_pay() {
  const auto time_of = [](float (*probe)(int64_t)) {
    double least = 1e9;
    for (int i = 0; i < 5; i++) {
      const auto begin = std::chrono::steady_clock::now();
      volatile float sum = probe(2000);
      (void)sum;
      const std::chrono::duration<double> took = std::chrono::steady_clock::now() - begin;
      least = took.count() < least ? took.count() : least;
    }
    return least;
  };
  return time_of(avx512bf16::table.dot_products) < 1.6 * time_of(avx512::table.dot_products);
}
#endif

constexpr int kMostTables = 6;

// Fills `tables` (room for kMostTables) and returns how many there are.
inline int available_tables(const KernelTable** tables) {
  int count = 0;
#if defined(KVASIR_X64)
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
      __builtin_cpu_supports("avx512vl")) {
    // Dot products of bytes, which the sets with bf16 and AMX are compiled with too.
    const bool bytes_work = __builtin_cpu_supports("avx512vnni");
    static const bool amx_works = bytes_work && has_amx(), bf16_works = bytes_work && has_avx512bf16();
    static const bool bf16_pays = bf16_works && dot_products_pay();
    if (amx_works) tables[count++] = &amx::table;
    if (bf16_works && bf16_pays) tables[count++] = &avx512bf16::table;
    if (bytes_work) tables[count++] = &avx512vnni::table;
    tables[count++] = &avx512::table;
    if (bf16_works && !bf16_pays) tables[count++] = &avx512bf16::table;
  }
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c")) {
    tables[count++] = &avx2::table;
  }
#endif
  tables[count++] = &vec4::table;
  return count;
}

}  // namespace kvasir

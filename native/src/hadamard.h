// The orthonormal Walsh-Hadamard transform, its own inverse; lengths that are no power of two in blocks of powers of two,
// the largest first.
#pragma once
#include "math.h"

namespace kvasir {
namespace KVASIR_ISA {

// Sums and differences of `length` / 2 pairs that are `step` apart, in place.
static inline void add_and_subtract(float* x, int length, int step) {
  for (int i = 0; i < length; i += 2 * step) {
    float *first = x + i, *second = x + i + step;
    int j = 0;
    for (; j + kLanes <= step; j += kLanes) {
      const F a = load(first + j), b = load(second + j);
      store(first + j, add(a, b));
      store(second + j, sub(a, b));
    }
    for (; j < step; j++) {
      const float a = first[j], b = second[j];
      first[j] = a + b;
      second[j] = a - b;
    }
  }
}

typedef int32_t LaneNumbers __attribute__((vector_size(sizeof(F))));

// Each lane and the one whose number differs in the bit `kStep` change places.
template <int kStep, typename V>
static inline V swap_lanes(V x) {
#if defined(__clang__)
  constexpr int s = kStep;
  if constexpr (sizeof(V) == 64) {
    return __builtin_shufflevector(x, x, 0 ^ s, 1 ^ s, 2 ^ s, 3 ^ s, 4 ^ s, 5 ^ s, 6 ^ s, 7 ^ s, 8 ^ s, 9 ^ s, 10 ^ s,
                                   11 ^ s, 12 ^ s, 13 ^ s, 14 ^ s, 15 ^ s);
  } else if constexpr (sizeof(V) == 32) {
    return __builtin_shufflevector(x, x, 0 ^ s, 1 ^ s, 2 ^ s, 3 ^ s, 4 ^ s, 5 ^ s, 6 ^ s, 7 ^ s);
  } else {
    return __builtin_shufflevector(x, x, 0 ^ s, 1 ^ s, 2 ^ s, 3 ^ s);
  }
#else
  // GCC has the above from version 12 on.
  LaneNumbers order;
  for (int i = 0; i < kLanes; i++) order[i] = i ^ kStep;
  return __builtin_shuffle(x, order);
#endif
}

// Sums and differences of lanes that are `kStep` apart, then of those twice as far.
template <int kStep>
static inline F within_vector(F x) {
  if constexpr (kStep >= kLanes) {
    return x;
  } else {
    float signs[kLanes];
    for (int i = 0; i < kLanes; i++) signs[i] = i & kStep ? -1.0f : 1.0f;
    return within_vector<2 * kStep>(fma(x, load(signs), swap_lanes<kStep>(x)));
  }
}

static void hadamard(float* x, int dim) {
  for (int begin = 0; begin < dim;) {
    int length = 1, step = 1;
    while (2 * length <= dim - begin) length *= 2;
    if (length >= kLanes) {
      for (int i = begin; i < begin + length; i += kLanes) store(x + i, within_vector<1>(load(x + i)));
      step = kLanes;
    }
    for (; step < length; step *= 2) add_and_subtract(x + begin, length, step);
    const float factor = (float)(1.0 / __builtin_sqrt((double)length));
    for (int i = begin; i < begin + length; i++) x[i] *= factor;
    begin += length;
  }
}

}  // namespace KVASIR_ISA
}  // namespace kvasir

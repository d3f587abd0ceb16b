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

static void hadamard(float* x, int dim) {
  for (int begin = 0; begin < dim;) {
    int length = 1;
    while (2 * length <= dim - begin) length *= 2;
    for (int step = 1; step < length; step *= 2) add_and_subtract(x + begin, length, step);
    const float factor = (float)(1.0 / __builtin_sqrt((double)length));
    for (int i = begin; i < begin + length; i++) x[i] *= factor;
    begin += length;
  }
}

}  // namespace KVASIR_ISA
}  // namespace kvasir

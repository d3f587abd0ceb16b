// How numbers are stored: one type for each, with its loads and stores.
#pragma once
#include "hadamard.h"
#include "quantized.h"

// For inner loops whose sums have to stay in registers.
#define KVASIR_UNROLL _Pragma("GCC unroll 16")
#define KVASIR_INLINE static inline __attribute__((always_inline))

namespace kvasir {
namespace KVASIR_ISA {

struct Half {
  uint16_t bits;
};
struct Brain {
  uint16_t bits;
};

static inline F load(const Half* p) { return load_half(&p->bits); }
static inline F load(const Brain* p) { return load_brain(&p->bits); }
static inline F load_part(const Half* p, int n) { return load_half_part(&p->bits, n); }
static inline F load_part(const Brain* p, int n) {
  uint16_t part[kLanes] = {0};
  __builtin_memcpy(part, p, (size_t)n * 2);
  return load_brain(part);
}

// f32 to bf16, nearest even; NaN stays NaN.
static inline uint16_t narrow_brain(float value) {
  uint32_t bits;
  __builtin_memcpy(&bits, &value, 4);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return (uint16_t)((bits >> 16) | 0x40u);
  return (uint16_t)((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

// `dim` f32 to storage.
static inline void narrow_row(float* to, const float* from, int dim) { __builtin_memcpy(to, from, (size_t)dim * 4); }
static inline void narrow_row(Half* to, const float* from, int dim) {
  const int whole = dim / kLanes * kLanes;
  for (int d = 0; d < whole; d += kLanes) store_half(&to[d].bits, load(from + d));
  if (whole == dim) return;
  uint16_t last[kLanes];
  store_half(last, load_part(from + whole, dim - whole));
  for (int d = whole; d < dim; d++) to[d].bits = last[d - whole];
}
static inline void narrow_row(Brain* to, const float* from, int dim) {
  for (int d = 0; d < dim; d++) to[d].bits = narrow_brain(from[d]);
}

// `dim` stored numbers to f32; writes whole vectors, zeros past the end.
template <typename X>
static inline void widen_row(float* to, const X* from, int dim) {
  const int whole = dim / kLanes * kLanes;
  for (int d = 0; d < whole; d += kLanes) store(to + d, load(from + d));
  if (whole < dim) store(to + whole, load_part(from + whole, dim - whole));
}

// Vector n of a row of `dim` stored numbers: of quantized rows without the scale. The last may be partial, with zeros.
template <typename X>
static inline F whole_vector(const X* row, int n, int) {
  return load(row + n * kLanes);
}
template <typename X>
static inline F part_vector(const X* row, int n, int dim) {
  return load_part(row + n * kLanes, dim - n * kLanes);
}
static inline F whole_vector(const Int8* row, int n, int) { return load_int8((const uint8_t*)row + n * kLanes); }
static inline F whole_vector(const E4m3* row, int n, int) { return load_e4m3((const uint8_t*)row + n * kLanes); }
static inline F whole_vector(const E5m2* row, int n, int) { return load_e5m2((const uint8_t*)row + n * kLanes); }
static inline F whole_vector(const Int4* row, int n, int dim) {
  const int at = n * kLanes, half = (dim + 1) / 2;
  const uint8_t* bytes = (const uint8_t*)row;
  if (at + kLanes <= half) return load_low_nibbles(bytes + at);
  if (at >= half) return load_high_nibbles(bytes + at - half);
  return codes_at(row, (const char*)row, at, dim);  // of both halves
}
static inline F part_vector(const Int8* row, int n, int dim) { return codes_at(row, (const char*)row, n * kLanes, dim); }
static inline F part_vector(const E4m3* row, int n, int dim) { return codes_at(row, (const char*)row, n * kLanes, dim); }
static inline F part_vector(const E5m2* row, int n, int dim) { return codes_at(row, (const char*)row, n * kLanes, dim); }
static inline F part_vector(const Int4* row, int n, int dim) { return codes_at(row, (const char*)row, n * kLanes, dim); }

// Vector n of each of kRows rows, one after the other, to `use(i, vector)`.
template <int kRows, typename X, typename Use>
KVASIR_INLINE void each_vector_of_rows(const X*, const char* const* rows, int n, int dim, const Use& use) {
  for (int i = 0; i < kRows; i++) use(i, whole_vector((const X*)rows[i], n, dim));
}
// Vectors [n, n + kCount) of a row, likewise.
template <int kCount, typename X, typename Use>
KVASIR_INLINE void each_vector_of_row(const X* row, int n, int dim, const Use& use) {
  for (int i = 0; i < kCount; i++) use(i, whole_vector(row, n + i, dim));
}
// Of int4 the half is looked at once for all of them: with a question for each, loops are not unrolled.
template <int kRows, typename Use>
KVASIR_INLINE void each_vector_of_rows(const Int4* type, const char* const* rows, int n, int dim, const Use& use) {
  const int at = n * kLanes, half = (dim + 1) / 2;
  if (at + kLanes <= half) {
    for (int i = 0; i < kRows; i++) use(i, load_low_nibbles((const uint8_t*)rows[i] + at));
  } else if (at >= half) {
    for (int i = 0; i < kRows; i++) use(i, load_high_nibbles((const uint8_t*)rows[i] + at - half));
  } else {
    for (int i = 0; i < kRows; i++) use(i, codes_at(type, rows[i], at, dim));
  }
}
template <int kCount, typename Use>
KVASIR_INLINE void each_vector_of_row(const Int4* row, int n, int dim, const Use& use) {
  const int at = n * kLanes, half = (dim + 1) / 2;
  const uint8_t* bytes = (const uint8_t*)row;
  if (at + kCount * kLanes <= half) {
    for (int i = 0; i < kCount; i++) use(i, load_low_nibbles(bytes + at + i * kLanes));
  } else if (at >= half) {
    for (int i = 0; i < kCount; i++) use(i, load_high_nibbles(bytes + at - half + i * kLanes));
  } else {
    for (int i = 0; i < kCount; i++) use(i, whole_vector(row, n + i, dim));
  }
}

// All of them at once.
template <int kRows, typename X>
static inline void vector_of_rows(const X* type, const char* const* rows, int n, int dim, F* to) {
  each_vector_of_rows<kRows>(type, rows, n, dim, [&](int i, F k) { to[i] = k; });
}
template <int kCount, typename X>
static inline void vectors_of_row(const X* row, int n, int dim, F* to) {
  each_vector_of_row<kCount>(row, n, dim, [&](int i, F v) { to[i] = v; });
}

template <typename X>
constexpr bool is_quantized_type() {
  return __is_empty(X);
}

// Rows of queries and outputs: element `at` of an array of `storage`, as a pointer.
static inline const char* at_element(const void* array, Storage storage, int64_t at) {
  return (const char*)array + at * row_bytes(storage, 1);
}

static inline void widen_any(float* to, const char* from, int dim, Storage storage) {
  if (storage == Storage::f32) widen_row(to, (const float*)from, dim);
  else if (storage == Storage::f16) widen_row(to, (const Half*)from, dim);
  else widen_row(to, (const Brain*)from, dim);
}

static inline void narrow_any(char* to, const float* from, int dim, Storage storage) {
  if (storage == Storage::f32) narrow_row((float*)to, from, dim);
  else if (storage == Storage::f16) narrow_row((Half*)to, from, dim);
  else if (storage == Storage::bf16) narrow_row((Brain*)to, from, dim);
  else if (storage == Storage::int8) quantize_row((const Int8*)nullptr, to, from, dim);
  else if (storage == Storage::e4m3) quantize_row((const E4m3*)nullptr, to, from, dim);
  else if (storage == Storage::e5m2) quantize_row((const E5m2*)nullptr, to, from, dim);
  else quantize_row((const Int4*)nullptr, to, from, dim);
}

// Turns one head at token t, in place; sign -1 turns back.
static inline void rotate_head(float* x, const Rotation& rotation, int64_t t, float sign) {
  const int pairs = rotation.rotary_pairs;
  const float *cos = rotation.cos + t * pairs, *sin = rotation.sin + t * pairs;
  if (rotation.is_interleaved) {
    for (int i = 0; i < pairs; i++) {
      const float a = x[2 * i], b = x[2 * i + 1], s = sign * sin[i];
      x[2 * i] = a * cos[i] - b * s;
      x[2 * i + 1] = b * cos[i] + a * s;
    }
    return;
  }
  float *first = x, *second = x + pairs;
  int i = 0;
  for (; i + kLanes <= pairs; i += kLanes) {
    const F a = load(first + i), b = load(second + i), c = load(cos + i), s = mul(broadcast(sign), load(sin + i));
    store(first + i, sub(mul(a, c), mul(b, s)));
    store(second + i, add(mul(b, c), mul(a, s)));
  }
  for (; i < pairs; i++) {
    const float a = first[i], b = second[i], s = sign * sin[i];
    first[i] = a * cos[i] - b * s;
    second[i] = b * cos[i] + a * s;
  }
}

}  // namespace KVASIR_ISA
}  // namespace kvasir

// Quantized rows: writing them, and reading codes as f32. A number is code times the scale at the end of its row.
#pragma once
#include "math.h"

namespace kvasir {
namespace KVASIR_ISA {

struct Int8 {
  static constexpr Storage kStorage = Storage::int8;
  static constexpr float kLargest = 127.0f, kFactor = 1.0f;
};
// Read as f16, whose exponents are 8 higher: what is loaded is 2^-8 of the value, and kFactor goes into the scale.
struct E4m3 {
  static constexpr Storage kStorage = Storage::e4m3;
  static constexpr float kLargest = 448.0f, kFactor = 256.0f;
};
struct E5m2 {
  static constexpr Storage kStorage = Storage::e5m2;
  static constexpr float kLargest = 57344.0f, kFactor = 1.0f;
};
struct Int4 {
  static constexpr Storage kStorage = Storage::int4;
  static constexpr float kLargest = 7.0f, kFactor = 1.0f;
};

static inline F load_codes(const Int8*, const uint8_t* p) { return load_int8(p); }
static inline F load_codes(const E4m3*, const uint8_t* p) { return load_e4m3(p); }
static inline F load_codes(const E5m2*, const uint8_t* p) { return load_e5m2(p); }

// What the codes of a row, as they are loaded, have to be multiplied by.
template <typename X>
static inline float row_scale(const char* row, int dim) {
  float scale;
  __builtin_memcpy(&scale, row + scale_offset(X::kStorage, dim), 4);
  return scale * X::kFactor;
}

// Codes [at, at + kLanes) of a row of `dim`, those past the last zero; memory past the row is not touched.
template <typename X>
static inline F codes_at(const X* type, const char* row, int at, int dim) {
  const uint8_t* codes = (const uint8_t*)row + at;
  if (at + kLanes <= dim) return load_codes(type, codes);
  uint8_t part[kLanes] = {0};
  __builtin_memcpy(part, codes, (size_t)(dim - at));
  return load_codes(type, part);
}
static inline F codes_at(const Int4*, const char* row, int at, int dim) {
  const uint8_t* bytes = (const uint8_t*)row;
  const int half = (dim + 1) / 2;
  if (at + kLanes <= half) return load_low_nibbles(bytes + at);
  if (at >= half && at + kLanes <= dim) return load_high_nibbles(bytes + at - half);
  uint8_t codes[kLanes] = {0};
  for (int i = at; i < at + kLanes && i < dim; i++) {
    codes[i - at] = (uint8_t)((i < half ? bytes[i] & 15 : bytes[i - half] >> 4) - 8);
  }
  return load_int8(codes);
}

// f32 to eight bits of which `fraction` are the fraction, nearest even, saturated; no NaN.
static inline uint8_t narrow_float8(float value, int fraction, int bias, int largest) {
  uint32_t bits;
  __builtin_memcpy(&bits, &value, 4);
  const uint32_t sign = bits >> 24 & 0x80u, magnitude = bits & 0x7fffffffu;
  const int dropped = 23 - fraction;
  if (magnitude < (uint32_t)(128 - bias) << 23) {
    // Adding a power of two whose last bit is the least number rounds to multiples of that.
    const uint32_t base = (uint32_t)(128 - bias + dropped) << 23;
    float power, absolute;
    __builtin_memcpy(&power, &base, 4);
    __builtin_memcpy(&absolute, &magnitude, 4);
    const float sum = absolute + power;
    __builtin_memcpy(&bits, &sum, 4);
    return (uint8_t)(sign | (bits - base));
  }
  const uint32_t rounded = magnitude + (1u << (dropped - 1)) - 1 + (magnitude >> dropped & 1);
  const uint32_t code = (rounded - ((uint32_t)(127 - bias) << 23)) >> dropped;
  return (uint8_t)(sign | (code < (uint32_t)largest ? code : (uint32_t)largest));
}

static inline int clamped(float rounded, int most) {
  const int value = (int)rounded;
  return value < -most ? -most : value > most ? most : value;
}
// `quotient`: number / scale, `rounded`: to the nearest integer.
static inline uint8_t code_of(const Int8*, float, float rounded) { return (uint8_t)clamped(rounded, 127); }
static inline uint8_t code_of(const Int4*, float, float rounded) { return (uint8_t)(clamped(rounded, 7) + 8); }
static inline uint8_t code_of(const E4m3*, float quotient, float) { return narrow_float8(quotient, 3, 7, 0x7e); }
static inline uint8_t code_of(const E5m2*, float quotient, float) { return narrow_float8(quotient, 2, 15, 0x7b); }

// The largest magnitude of a row; NaN when one number is NaN or infinite.
static inline float largest_of(const float* x, int dim) {
  F most = zero(), spoiled = zero();
  for (int d = 0; d < dim; d += kLanes) {
    const F value = d + kLanes <= dim ? load(x + d) : load_part(x + d, dim - d);
    most = max(most, magnitude(value));
    spoiled = fma(value, zero(), spoiled);
  }
  float each[kLanes], largest = 0.0f;
  store(each, most);
  for (int i = 0; i < kLanes; i++) largest = each[i] > largest ? each[i] : largest;
  return reduce_add(spoiled) == 0.0f ? largest : __builtin_nanf("");
}

// Code `at` of a row; those of int4 in order: the first of a byte clears the other.
static inline void put_code(const void*, uint8_t* row, int at, int, uint8_t code) { row[at] = code; }
static inline void put_code(const Int4*, uint8_t* row, int at, int dim, uint8_t code) {
  const int half = (dim + 1) / 2;
  if (at < half) row[at] = (uint8_t)(code | 0x80);
  else row[at - half] = (uint8_t)((row[at - half] & 15) | code << 4);
}

template <typename X>
static void quantize_row(const X* type, char* to, const float* from, int dim) {
  const float scale = largest_of(from, dim) / X::kLargest;
  const F divisor = broadcast(scale);
  const int64_t end = scale_offset(X::kStorage, dim);
  for (int64_t i = end - 4 < 0 ? 0 : end - 4; i < end; i++) to[i] = 0;
  for (int d = 0; d < dim; d += kLanes) {
    const int used = dim - d < kLanes ? dim - d : kLanes;
    const F value = used == kLanes ? load(from + d) : load_part(from + d, used);
    const F quotient = scale > 0.0f ? divide(value, divisor) : zero();
    float quotients[kLanes], rounded[kLanes];
    store(quotients, quotient);
    store(rounded, round_even(quotient));
    for (int i = 0; i < used; i++) put_code(type, (uint8_t*)to, d + i, dim, code_of(type, quotients[i], rounded[i]));
  }
  __builtin_memcpy(to + end, &scale, 4);
}

}  // namespace KVASIR_ISA
}  // namespace kvasir

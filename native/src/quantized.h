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
// Apart from the loops that call it, which then stay short.
static __attribute__((noinline)) F codes_at(const Int4*, const char* row, int at, int dim) {
  const uint8_t* bytes = (const uint8_t*)row;
  const int half = (dim + 1) / 2;
  uint8_t codes[kLanes] = {0};
  for (int i = at; i < at + kLanes && i < dim; i++) {
    codes[i - at] = (uint8_t)((i < half ? bytes[i] & 15 : bytes[i - half] >> 4) - 8);
  }
  return load_int8(codes);
}

// kLanes numbers to eight bits of which kFraction are the fraction, nearest even, saturated; no NaN.
#if defined(__AVX512F__)

template <int kFraction, int kBias, int kLargest>
static inline void store_float8(uint8_t* to, F value) {
  constexpr int kDropped = 23 - kFraction;
  const __m512i bits = _mm512_castps_si512(value);
  const __m512i sign = _mm512_and_si512(_mm512_srli_epi32(bits, 24), _mm512_set1_epi32(0x80));
  const __m512i magnitude = _mm512_and_si512(bits, _mm512_set1_epi32(0x7fffffff));
  const __mmask16 is_small = _mm512_cmplt_epi32_mask(magnitude, _mm512_set1_epi32((128 - kBias) << 23));
  // Adding a power of two whose last bit is the least number rounds to multiples of that.
  const __m512i power = _mm512_set1_epi32((128 - kBias + kDropped) << 23);
  const F sum = add(_mm512_castsi512_ps(magnitude), _mm512_castsi512_ps(power));
  const __m512i least = _mm512_sub_epi32(_mm512_castps_si512(sum), power);
  const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(magnitude, kDropped), _mm512_set1_epi32(1));
  const __m512i half = _mm512_set1_epi32((1 << (kDropped - 1)) - 1 - ((127 - kBias) << 23));
  const __m512i nearest = _mm512_srli_epi32(_mm512_add_epi32(_mm512_add_epi32(magnitude, odd), half), kDropped);
  const __m512i code = _mm512_min_epu32(_mm512_mask_blend_epi32(is_small, nearest, least), _mm512_set1_epi32(kLargest));
  _mm_storeu_si128((__m128i*)to, _mm512_cvtepi32_epi8(_mm512_or_si512(sign, code)));
}

// Integers within `most`, plus `bias`.
static inline void store_integers(uint8_t* to, F value, int most, int bias) {
  const __m512i within = _mm512_min_epi32(_mm512_cvtps_epi32(value), _mm512_set1_epi32(most));
  const __m512i code = _mm512_add_epi32(_mm512_max_epi32(within, _mm512_set1_epi32(-most)), _mm512_set1_epi32(bias));
  _mm_storeu_si128((__m128i*)to, _mm512_cvtepi32_epi8(code));
}

#else

template <int kFraction, int kBias, int kLargest>
static inline void store_float8(uint8_t* to, F value) {
  constexpr int kDropped = 23 - kFraction;
  uint32_t each[kLanes];
  store((float*)each, value);
  for (int i = 0; i < kLanes; i++) {
    const uint32_t sign = each[i] >> 24 & 0x80u, magnitude = each[i] & 0x7fffffffu;
    uint32_t code;
    if (magnitude < (uint32_t)(128 - kBias) << 23) {
      // Adding a power of two whose last bit is the least number rounds to multiples of that.
      const uint32_t base = (uint32_t)(128 - kBias + kDropped) << 23;
      float power, absolute;
      __builtin_memcpy(&power, &base, 4);
      __builtin_memcpy(&absolute, &magnitude, 4);
      const float sum = absolute + power;
      __builtin_memcpy(&code, &sum, 4);
      code -= base;
    } else {
      const uint32_t rounded = magnitude + (1u << (kDropped - 1)) - 1 + (magnitude >> kDropped & 1);
      code = (rounded - ((uint32_t)(127 - kBias) << 23)) >> kDropped;
    }
    to[i] = (uint8_t)(sign | (code < (uint32_t)kLargest ? code : (uint32_t)kLargest));
  }
}

static inline void store_integers(uint8_t* to, F value, int most, int bias) {
  float each[kLanes];
  store(each, round_even(value));
  for (int i = 0; i < kLanes; i++) {
    const int whole = (int)each[i];
    to[i] = (uint8_t)((whole < -most ? -most : whole > most ? most : whole) + bias);
  }
}

#endif

// Codes of kLanes numbers that were divided by the scale.
static inline void store_codes(const Int8*, uint8_t* to, F quotient) { store_integers(to, quotient, 127, 0); }
static inline void store_codes(const Int4*, uint8_t* to, F quotient) { store_integers(to, quotient, 7, 8); }
static inline void store_codes(const E4m3*, uint8_t* to, F quotient) { store_float8<3, 7, 0x7e>(to, quotient); }
static inline void store_codes(const E5m2*, uint8_t* to, F quotient) { store_float8<2, 15, 0x7b>(to, quotient); }

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

// What a row is quantized from, and by what scale.
struct Quotients {
  const float* from;
  int dim;
  float scale;

  // Numbers [at, end) or as many as there are lanes, and zeros.
  F part(int at, int end) const {
    if (!(scale > 0.0f) || at >= end) return zero();
    return divide(end - at >= kLanes ? load(from + at) : load_part(from + at, end - at), broadcast(scale));
  }
};

static inline int lanes_of(int left) { return left < kLanes ? left : kLanes; }

template <typename X>
static inline void quantize_numbers(const X* type, uint8_t* to, const Quotients& numbers) {
  uint8_t codes[kLanes];
  for (int d = 0; d < numbers.dim; d += kLanes) {
    store_codes(type, codes, numbers.part(d, numbers.dim));
    __builtin_memcpy(to + d, codes, (size_t)lanes_of(numbers.dim - d));
  }
}
static inline void quantize_numbers(const Int4* type, uint8_t* to, const Quotients& numbers) {
  const int half = (numbers.dim + 1) / 2;
  uint8_t low[kLanes], high[kLanes];
  for (int i = 0; i < half; i += kLanes) {
    store_codes(type, low, numbers.part(i, half));
    store_codes(type, high, numbers.part(half + i, numbers.dim));
    for (int n = 0; n < kLanes; n++) low[n] = (uint8_t)(low[n] | high[n] << 4);
    __builtin_memcpy(to + i, low, (size_t)lanes_of(half - i));
  }
}

template <typename X>
static void quantize_row(const X* type, char* to, const float* from, int dim) {
  const float scale = largest_of(from, dim) / X::kLargest;
  const int64_t end = scale_offset(X::kStorage, dim);
  for (int64_t i = end - 4 < 0 ? 0 : end - 4; i < end; i++) to[i] = 0;
  quantize_numbers(type, (uint8_t*)to, Quotients{from, dim, scale});
  __builtin_memcpy(to + end, &scale, 4);
}

}  // namespace KVASIR_ISA
}  // namespace kvasir

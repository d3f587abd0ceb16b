// 8 lanes of f32 on AVX2 with FMA and F16C.
#pragma once
#include <immintrin.h>
#include <stdint.h>

namespace kvasir {
namespace KVASIR_ISA {

using F = __m256;
constexpr int kLanes = 8;
constexpr int kAccumulators = 8;
constexpr int kTileRows = 6, kTileVectors = 2;

static inline F load(const float* p) { return _mm256_loadu_ps(p); }
static inline void store(float* p, F v) { _mm256_storeu_ps(p, v); }
static inline F broadcast(float x) { return _mm256_set1_ps(x); }
static inline F zero() { return _mm256_setzero_ps(); }
static inline F add(F a, F b) { return _mm256_add_ps(a, b); }
static inline F sub(F a, F b) { return _mm256_sub_ps(a, b); }
static inline F mul(F a, F b) { return _mm256_mul_ps(a, b); }
static inline F divide(F a, F b) { return _mm256_div_ps(a, b); }
static inline F magnitude(F a) { return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), a); }
static inline F with_sign_of(F a, F sign) {
  return _mm256_or_ps(a, _mm256_and_ps(sign, _mm256_set1_ps(-0.0f)));
}
static inline F fma(F a, F b, F c) { return _mm256_fmadd_ps(a, b, c); }
static inline F max(F a, F b) { return _mm256_max_ps(a, b); }
// Keeps the compiler from fusing a product with what follows.
static inline F rounded(F a) {
  __asm__("" : "+x"(a));
  return a;
}
// `near` where a < b, else `far`, NaN included.
static inline F where_below(F a, F b, F near, F far) { return _mm256_blendv_ps(far, near, _mm256_cmp_ps(a, b, _CMP_LT_OQ)); }
static inline F load_half(const uint16_t* p) { return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i*)p)); }
static inline F load_brain(const uint16_t* p) {
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i*)p)), 16));
}
// Codes of quantized rows: signed bytes, 8-bit floats (e4m3 as 2^-8 of its value), and the halves of bytes less 8.
static inline F load_int8(const uint8_t* p) {
  return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i*)p)));
}
static inline F load_e4m3(const uint8_t* p) {
  const __m128i bits = _mm_slli_epi16(_mm_cvtepi8_epi16(_mm_loadl_epi64((const __m128i*)p)), 7);
  return _mm256_cvtph_ps(_mm_and_si128(bits, _mm_set1_epi16((int16_t)0xbf80)));
}
static inline F load_e5m2(const uint8_t* p) {
  return _mm256_cvtph_ps(_mm_unpacklo_epi8(_mm_setzero_si128(), _mm_loadl_epi64((const __m128i*)p)));
}
static inline F from_nibbles(__m128i nibbles) {
  return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_sub_epi8(_mm_and_si128(nibbles, _mm_set1_epi8(15)), _mm_set1_epi8(8))));
}
static inline F load_low_nibbles(const uint8_t* p) { return from_nibbles(_mm_loadl_epi64((const __m128i*)p)); }
static inline F load_high_nibbles(const uint8_t* p) {
  return from_nibbles(_mm_srli_epi16(_mm_loadl_epi64((const __m128i*)p), 4));
}
static inline void store_half(uint16_t* p, F v) {
  _mm_storeu_si128((__m128i*)p, _mm256_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}
static inline F load_part(const float* p, int n) {
  float t[8] = {0};
  __builtin_memcpy(t, p, (size_t)n * 4);
  return load(t);
}
static inline F load_half_part(const uint16_t* p, int n) {
  uint16_t t[8] = {0};
  __builtin_memcpy(t, p, (size_t)n * 2);
  return load_half(t);
}
static inline bool any_above(F a, F b) { return _mm256_movemask_ps(_mm256_cmp_ps(a, b, _CMP_NLE_UQ)) != 0; }
static inline float reduce_add(F v) {
  __m128 x = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
  x = _mm_add_ps(x, _mm_movehl_ps(x, x));
  return _mm_cvtss_f32(_mm_add_ss(x, _mm_shuffle_ps(x, x, 1)));
}
static inline F reduce_each(const F* a) {
  F lo = _mm256_hadd_ps(_mm256_hadd_ps(a[0], a[1]), _mm256_hadd_ps(a[2], a[3]));
  F hi = _mm256_hadd_ps(_mm256_hadd_ps(a[4], a[5]), _mm256_hadd_ps(a[6], a[7]));
  return add(_mm256_permute2f128_ps(lo, hi, 0x20), _mm256_permute2f128_ps(lo, hi, 0x31));
}
// Lane i of vector j becomes lane j of vector i.
static inline void transpose(F* x) {
  F a[8], b[8];
  for (int i = 0; i < 4; i++) {
    a[2 * i] = _mm256_unpacklo_ps(x[2 * i], x[2 * i + 1]);
    a[2 * i + 1] = _mm256_unpackhi_ps(x[2 * i], x[2 * i + 1]);
  }
  for (int i = 0; i < 2; i++) {
    b[4 * i] = _mm256_shuffle_ps(a[4 * i], a[4 * i + 2], 0x44);
    b[4 * i + 1] = _mm256_shuffle_ps(a[4 * i], a[4 * i + 2], 0xee);
    b[4 * i + 2] = _mm256_shuffle_ps(a[4 * i + 1], a[4 * i + 3], 0x44);
    b[4 * i + 3] = _mm256_shuffle_ps(a[4 * i + 1], a[4 * i + 3], 0xee);
  }
  for (int i = 0; i < 4; i++) {
    x[i] = _mm256_permute2f128_ps(b[i], b[4 + i], 0x20);
    x[4 + i] = _mm256_permute2f128_ps(b[i], b[4 + i], 0x31);
  }
}
static inline F hide(F v, const int32_t* positions, int32_t birth, int32_t death) {
  __m256i p = _mm256_loadu_si256((const __m256i*)positions);
  __m256i unborn = _mm256_cmpgt_epi32(_mm256_set1_epi32(birth), p);
  __m256i alive = _mm256_cmpgt_epi32(_mm256_set1_epi32(death), p);
  __m256i seen = _mm256_andnot_si256(unborn, alive);
  return _mm256_blendv_ps(_mm256_set1_ps(-__builtin_inff()), v, _mm256_castsi256_ps(seen));
}
static inline F scale_or_zero(F p, F n, F x, float lowest) {
  __m256i power = _mm256_slli_epi32(_mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127)), 23);
  F keep = _mm256_cmp_ps(x, _mm256_set1_ps(lowest), _CMP_NLT_UQ);
  return _mm256_and_ps(keep, mul(p, _mm256_castsi256_ps(power)));
}
static inline F round_even(F x) { return _mm256_round_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }

}  // namespace KVASIR_ISA
}  // namespace kvasir

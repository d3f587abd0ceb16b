// 16 lanes of f32 on AVX-512 (F, BW, DQ, VL).
#pragma once
#include <immintrin.h>
#include <stdint.h>

namespace kvasir {
namespace KVASIR_ISA {

using F = __m512;
constexpr int kLanes = 16;
// Accumulators that a micro kernel may hold: two thirds of the registers.
constexpr int kAccumulators = 16;
constexpr int kTileRows = 6, kTileVectors = 4;

static inline F load(const float* p) { return _mm512_loadu_ps(p); }
static inline void store(float* p, F v) { _mm512_storeu_ps(p, v); }
static inline F broadcast(float x) { return _mm512_set1_ps(x); }
static inline F zero() { return _mm512_setzero_ps(); }
static inline F add(F a, F b) { return _mm512_add_ps(a, b); }
static inline F sub(F a, F b) { return _mm512_sub_ps(a, b); }
static inline F mul(F a, F b) { return _mm512_mul_ps(a, b); }
static inline F divide(F a, F b) { return _mm512_div_ps(a, b); }
static inline F magnitude(F a) { return _mm512_abs_ps(a); }
static inline F with_sign_of(F a, F sign) {
  return _mm512_or_ps(a, _mm512_and_ps(sign, _mm512_set1_ps(-0.0f)));
}
static inline F fma(F a, F b, F c) { return _mm512_fmadd_ps(a, b, c); }
static inline F max(F a, F b) { return _mm512_max_ps(a, b); }
// Keeps the compiler from fusing a product with what follows.
static inline F rounded(F a) {
  __asm__("" : "+v"(a));
  return a;
}
// `near` where a < b, else `far`, NaN included.
static inline F where_below(F a, F b, F near, F far) {
  return _mm512_mask_blend_ps(_mm512_cmp_ps_mask(a, b, _CMP_LT_OQ), far, near);
}
static inline F load_half(const uint16_t* p) { return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i*)p)); }
static inline F load_brain(const uint16_t* p) {
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i*)p)), 16));
}
// Codes of quantized rows: signed bytes, 8-bit floats (e4m3 as 2^-8 of its value), and the halves of bytes less 8.
static inline F load_int8(const uint8_t* p) {
  return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i*)p)));
}
static inline F load_e4m3(const uint8_t* p) {
  const __m256i bits = _mm256_slli_epi16(_mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i*)p)), 7);
  return _mm512_cvtph_ps(_mm256_and_si256(bits, _mm256_set1_epi16((int16_t)0xbf80)));
}
static inline F load_e5m2(const uint8_t* p) {
  return _mm512_cvtph_ps(_mm256_slli_epi16(_mm256_cvtepu8_epi16(_mm_loadu_si128((const __m128i*)p)), 8));
}
static inline F from_nibbles(__m128i nibbles) {
  return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_sub_epi8(_mm_and_si128(nibbles, _mm_set1_epi8(15)), _mm_set1_epi8(8))));
}
static inline F load_low_nibbles(const uint8_t* p) { return from_nibbles(_mm_loadu_si128((const __m128i*)p)); }
static inline F load_high_nibbles(const uint8_t* p) {
  return from_nibbles(_mm_srli_epi16(_mm_loadu_si128((const __m128i*)p), 4));
}
static inline void store_half(uint16_t* p, F v) {
  _mm256_storeu_si256((__m256i*)p, _mm512_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}
// The first n < kLanes elements; the rest of the vector is zero, memory past them is not touched.
static inline F load_part(const float* p, int n) { return _mm512_maskz_loadu_ps((__mmask16)((1u << n) - 1), p); }
static inline F load_half_part(const uint16_t* p, int n) {
  return _mm512_cvtph_ps(_mm256_maskz_loadu_epi16((__mmask16)((1u << n) - 1), p));
}
// Whether any lane of `a` is not at most that of `b`: greater, or NaN.
static inline bool any_above(F a, F b) { return _mm512_cmp_ps_mask(a, b, _CMP_NLE_UQ) != 0; }
static inline float reduce_add(F v) { return _mm512_reduce_add_ps(v); }

// Quarters of four vectors: vector i gets quarter i of each.
static inline void turn_quarters(F* x) {
  const F a = _mm512_shuffle_f32x4(x[0], x[1], 0x44), b = _mm512_shuffle_f32x4(x[0], x[1], 0xee);
  const F c = _mm512_shuffle_f32x4(x[2], x[3], 0x44), d = _mm512_shuffle_f32x4(x[2], x[3], 0xee);
  x[0] = _mm512_shuffle_f32x4(a, c, 0x88);
  x[1] = _mm512_shuffle_f32x4(a, c, 0xdd);
  x[2] = _mm512_shuffle_f32x4(b, d, 0x88);
  x[3] = _mm512_shuffle_f32x4(b, d, 0xdd);
}

// Quarter n of the result holds the sums of quarter n of each of four vectors.
static inline F sum_quarters(const F* x) {
  const F a = add(_mm512_unpacklo_ps(x[0], x[1]), _mm512_unpackhi_ps(x[0], x[1]));
  const F b = add(_mm512_unpacklo_ps(x[2], x[3]), _mm512_unpackhi_ps(x[2], x[3]));
  const __m512d c = _mm512_castps_pd(a), d = _mm512_castps_pd(b);
  return add(_mm512_castpd_ps(_mm512_unpacklo_pd(c, d)), _mm512_castpd_ps(_mm512_unpackhi_pd(c, d)));
}

// Lane i of the result is the sum of all lanes of a[i].
static inline F reduce_each(const F* a) {
  F u[4];
  for (int i = 0; i < 4; i++) u[i] = sum_quarters(a + 4 * i);
  F v0 = add(_mm512_shuffle_f32x4(u[0], u[1], 0x88), _mm512_shuffle_f32x4(u[0], u[1], 0xdd));
  F v1 = add(_mm512_shuffle_f32x4(u[2], u[3], 0x88), _mm512_shuffle_f32x4(u[2], u[3], 0xdd));
  return add(_mm512_shuffle_f32x4(v0, v1, 0x88), _mm512_shuffle_f32x4(v0, v1, 0xdd));
}

// Lane i of vector j becomes lane j of vector i.
static inline void transpose(F* x) {
  __m512i a[16], b[16];
  for (int i = 0; i < 8; i++) {
    const __m512i low = _mm512_castps_si512(x[2 * i]), high = _mm512_castps_si512(x[2 * i + 1]);
    a[2 * i] = _mm512_unpacklo_epi32(low, high);
    a[2 * i + 1] = _mm512_unpackhi_epi32(low, high);
  }
  for (int i = 0; i < 4; i++) {
    b[4 * i] = _mm512_unpacklo_epi64(a[4 * i], a[4 * i + 2]);
    b[4 * i + 1] = _mm512_unpackhi_epi64(a[4 * i], a[4 * i + 2]);
    b[4 * i + 2] = _mm512_unpacklo_epi64(a[4 * i + 1], a[4 * i + 3]);
    b[4 * i + 3] = _mm512_unpackhi_epi64(a[4 * i + 1], a[4 * i + 3]);
  }
  for (int i = 0; i < 4; i++) {
    a[i] = _mm512_shuffle_i32x4(b[i], b[4 + i], 0x88);
    a[4 + i] = _mm512_shuffle_i32x4(b[i], b[4 + i], 0xdd);
    a[8 + i] = _mm512_shuffle_i32x4(b[8 + i], b[12 + i], 0x88);
    a[12 + i] = _mm512_shuffle_i32x4(b[8 + i], b[12 + i], 0xdd);
  }
  for (int i = 0; i < 8; i++) {
    x[i] = _mm512_castsi512_ps(_mm512_shuffle_i32x4(a[i], a[8 + i], 0x88));
    x[8 + i] = _mm512_castsi512_ps(_mm512_shuffle_i32x4(a[i], a[8 + i], 0xdd));
  }
}

// Where births <= position < deaths, `v`; elsewhere -infinity. Positions are lanes.
static inline F hide(F v, const int32_t* positions, int32_t birth, int32_t death) {
  __m512i p = _mm512_loadu_si512(positions);
  __mmask16 seen = _mm512_cmpge_epi32_mask(p, _mm512_set1_epi32(birth));
  seen = _mm512_mask_cmplt_epi32_mask(seen, p, _mm512_set1_epi32(death));
  return _mm512_mask_blend_ps(seen, _mm512_set1_ps(-__builtin_inff()), v);
}

// 2^n * p for integral n in [-126, 127]; lanes where x < lowest become 0.
static inline F scale_or_zero(F p, F n, F x, float lowest) {
  __mmask16 keep = _mm512_cmp_ps_mask(x, _mm512_set1_ps(lowest), _CMP_NLT_UQ);
  return _mm512_maskz_scalef_ps(keep, p, n);
}
static inline F round_even(F x) { return _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }

}  // namespace KVASIR_ISA
}  // namespace kvasir

// 4 lanes of f32 on the compilers' vector extensions: SSE2, NEON and WebAssembly SIMD, with or without fused
// multiply-add (relaxed SIMD). f16 goes through integer arithmetic.
#pragma once
#include <stdint.h>
#if defined(__wasm_simd128__)
#include <wasm_simd128.h>
// WebAssembly cannot prefetch, but it can load what it does not use: engines keep such a load, since it might trap, and
// processors don't wait for it. It must not trap, which src/kernels/wasm-memory.ts sees to.
#define __builtin_prefetch(at, ...) ((void)*(const volatile char*)(at))
#elif defined(__SSE2__)
#include <emmintrin.h>
#endif

namespace kvasir {
namespace KVASIR_ISA {

typedef float F __attribute__((vector_size(16)));
typedef int32_t I __attribute__((vector_size(16)));
constexpr int kLanes = 4;
constexpr int kAccumulators = 8;
constexpr int kTileRows = 4, kTileVectors = 2;

static inline F load(const float* p) {
  F v;
  __builtin_memcpy(&v, p, 16);
  return v;
}
static inline void store(float* p, F v) { __builtin_memcpy(p, &v, 16); }
static inline F broadcast(float x) { return F{x, x, x, x}; }
static inline F zero() { return broadcast(0.0f); }
static inline F add(F a, F b) { return a + b; }
static inline F sub(F a, F b) { return a - b; }
static inline F mul(F a, F b) { return a * b; }
static inline F divide(F a, F b) { return a / b; }
static inline F magnitude(F a) { return (F)((I)a & 0x7fffffff); }
static inline F with_sign_of(F a, F sign) { return (F)((I)a | ((I)sign & (int32_t)0x80000000)); }
static inline F select(I mask, F a, F b) { return (F)(((I)a & mask) | ((I)b & ~mask)); }
#if defined(__wasm_relaxed_simd__)
static inline F fma(F a, F b, F c) { return (F)wasm_f32x4_relaxed_madd((v128_t)a, (v128_t)b, (v128_t)c); }
#else
static inline F fma(F a, F b, F c) { return a * b + c; }  // fused where the target has it (-ffp-contract=fast)
#endif
// `near` where a < b, else `far`, NaN included.
static inline F where_below(F a, F b, F near, F far) { return select((I)(a < b), near, far); }
// Keeps the compiler from fusing a product with what follows.
static inline F rounded(F a) {
#if defined(__aarch64__)
  __asm__("" : "+w"(a));
#elif defined(__SSE2__)
  __asm__("" : "+x"(a));
#endif
  return a;
}
// As on x86: the second operand where either is NaN.
#if defined(__wasm_simd128__)
static inline F max(F a, F b) { return (F)wasm_f32x4_pmax((v128_t)b, (v128_t)a); }
#elif defined(__SSE2__)
static inline F max(F a, F b) { return (F)_mm_max_ps((__m128)a, (__m128)b); }
#else
static inline F max(F a, F b) { return select((I)(a > b), a, b); }
#endif

#if defined(__wasm_simd128__)
// Hides a constant from the compiler, which would write it out wherever it is used, inside of loops too.
static inline F kept(F v) {
  __asm__("" : "+r"(v));
  return v;
}
static inline I kept(int32_t x) {
  I v = {x, x, x, x};
  __asm__("" : "+r"(v));
  return v;
}
#else
static inline F kept(F v) { return v; }
static inline I kept(int32_t x) { return I{x, x, x, x}; }
#endif

// f16, sign-extended to 32 bits, to f32: the bits shifted into place are 2^112 too small, which one exact product
// mends, subnormals included; infinity and NaN get their exponent back.
static inline F widen(I half) {
  const I exponent = kept(0x7c00);
  const I special = (I)((half & exponent) == exponent) & kept(0x7f800000);
  const F value = (F)((half << 13) & kept((int32_t)0x8fffe000)) * kept(broadcast(0x1p112f));
  return (F)((I)value | special);
}
static inline F load_half(const uint16_t* p) {
#if defined(__wasm_simd128__)
  return widen((I)wasm_i32x4_load16x4(p));
#else
  return widen(I{(int16_t)p[0], (int16_t)p[1], (int16_t)p[2], (int16_t)p[3]});
#endif
}
static inline F load_brain(const uint16_t* p) {
#if defined(__wasm_simd128__)
  return (F)wasm_i32x4_shl(wasm_u32x4_load16x4(p), 16);
#else
  return (F)(I{(int32_t)p[0], (int32_t)p[1], (int32_t)p[2], (int32_t)p[3]} << 16);
#endif
}
// Four bytes, sign-extended or not.
static inline I load_signed_bytes(const uint8_t* p) {
#if defined(__wasm_simd128__)
  return (I)wasm_i32x4_extend_low_i16x8(wasm_i16x8_extend_low_i8x16(wasm_v128_load32_zero(p)));
#else
  return I{(int8_t)p[0], (int8_t)p[1], (int8_t)p[2], (int8_t)p[3]};
#endif
}
static inline I load_bytes(const uint8_t* p) {
#if defined(__wasm_simd128__)
  return (I)wasm_u32x4_extend_low_u16x8(wasm_u16x8_extend_low_u8x16(wasm_v128_load32_zero(p)));
#else
  return I{p[0], p[1], p[2], p[3]};
#endif
}
// Codes of quantized rows: signed bytes, 8-bit floats (e4m3 as 2^-8 of its value), and the halves of bytes less 8.
static inline F load_int8(const uint8_t* p) { return __builtin_convertvector(load_signed_bytes(p), F); }
static inline F load_e4m3(const uint8_t* p) {
  return (F)((load_signed_bytes(p) << 20) & kept((int32_t)0x87f00000)) * kept(broadcast(0x1p112f));
}
static inline F load_e5m2(const uint8_t* p) { return widen(load_signed_bytes(p) << 8); }
static inline F load_low_nibbles(const uint8_t* p) {
  return __builtin_convertvector((load_bytes(p) & kept(15)) - kept(8), F);
}
static inline F load_high_nibbles(const uint8_t* p) { return __builtin_convertvector((load_bytes(p) >> 4) - kept(8), F); }
// f32 to f16, nearest even.
static inline uint16_t narrow(float value) {
  uint32_t bits;
  __builtin_memcpy(&bits, &value, 4);
  uint32_t sign = (bits >> 16) & 0x8000u, magnitude = bits & 0x7fffffffu;
  if (magnitude > 0x7f800000u) return (uint16_t)(sign | 0x7e00u);
  if (magnitude >= 0x477ff000u) return (uint16_t)(sign | 0x7c00u);
  if (magnitude < 0x38800000u) {
    // Adding 0.5 puts the last bit of a subnormal f16 in the last bit of the f32, rounding on the way.
    float absolute;
    __builtin_memcpy(&absolute, &magnitude, 4);
    float shifted = absolute + 0.5f;
    __builtin_memcpy(&magnitude, &shifted, 4);
    return (uint16_t)(sign | (magnitude - 0x3f000000u));
  }
  return (uint16_t)(sign | ((magnitude + 0xfffu + ((magnitude >> 13) & 1u) - 0x38000000u) >> 13));
}
static inline void store_half(uint16_t* p, F v) {
  for (int i = 0; i < 4; i++) p[i] = narrow(v[i]);
}
static inline F load_part(const float* p, int n) {
  float t[4] = {0};
  for (int i = 0; i < n; i++) t[i] = p[i];
  return load(t);
}
static inline F load_half_part(const uint16_t* p, int n) {
  uint16_t t[4] = {0};
  for (int i = 0; i < n; i++) t[i] = p[i];
  return load_half(t);
}
static inline bool any_above(F a, F b) {
  const I above = ~(I)(a <= b);
#if defined(__wasm_simd128__)
  return wasm_v128_any_true((v128_t)above);
#else
  return (above[0] | above[1] | above[2] | above[3]) != 0;
#endif
}
static inline float reduce_add(F v) { return (v[0] + v[2]) + (v[1] + v[3]); }
static inline F reduce_each(const F* a) {
#if defined(__clang__)
  F t0 = __builtin_shufflevector(a[0], a[1], 0, 4, 2, 6) + __builtin_shufflevector(a[0], a[1], 1, 5, 3, 7);
  F t1 = __builtin_shufflevector(a[2], a[3], 0, 4, 2, 6) + __builtin_shufflevector(a[2], a[3], 1, 5, 3, 7);
  return __builtin_shufflevector(t0, t1, 0, 1, 4, 5) + __builtin_shufflevector(t0, t1, 2, 3, 6, 7);
#else
  F t0 = __builtin_shuffle(a[0], a[1], (I){0, 4, 2, 6}) + __builtin_shuffle(a[0], a[1], (I){1, 5, 3, 7});
  F t1 = __builtin_shuffle(a[2], a[3], (I){0, 4, 2, 6}) + __builtin_shuffle(a[2], a[3], (I){1, 5, 3, 7});
  return __builtin_shuffle(t0, t1, (I){0, 1, 4, 5}) + __builtin_shuffle(t0, t1, (I){2, 3, 6, 7});
#endif
}
// Lane i of vector j becomes lane j of vector i.
static inline void transpose(F* x) {
  float t[16];
  for (int i = 0; i < 4; i++) {
    for (int j = 0; j < 4; j++) t[4 * j + i] = x[i][j];
  }
  for (int i = 0; i < 4; i++) x[i] = load(t + 4 * i);
}
static inline F hide(F v, const int32_t* positions, int32_t birth, int32_t death) {
  I p;
  __builtin_memcpy(&p, positions, 16);
  I seen = (I)(p >= birth) & (I)(p < death);
  return select(seen, v, broadcast(-__builtin_inff()));
}
static inline F round_even(F x) {
  // Valid for |x| < 2^22, which exp's range reduction keeps to.
#if defined(__wasm_simd128__)
  return (F)wasm_f32x4_nearest((v128_t)x);
#else
  const F magic = broadcast(12582912.0f);
  F shifted = x + magic;
  // Keeps the compiler from folding (x + m) - m.
#if defined(__aarch64__)
  __asm__("" : "+w"(shifted));
#elif defined(__SSE2__)
  __asm__("" : "+x"(shifted));
#endif
  return shifted - magic;
#endif
}
static inline F scale_or_zero(F p, F n, F x, float lowest) {
  I power = (__builtin_convertvector(n, I) + 127) << 23;
  I drop = (I)(x < broadcast(lowest));
  return (F)((I)(p * (F)power) & ~drop);
}

}  // namespace KVASIR_ISA
}  // namespace kvasir

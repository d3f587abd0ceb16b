// Products of bytes (VNNI), by which rows of int8 and int4 meet queries and weights that are integers too: three bytes with
// one scale, 24 bits, as many as f32 has. Sums of products are exact; only their scales are f32.
//
// Turning bytes and multiplying them have to alternate in the program: the processor looks ahead by a few rows, and turning
// has one port where multiplying has two.
#pragma once
#include "byte_kernels.h"

namespace kvasir {
namespace KVASIR_ISA {

// sum + codes . terms, four bytes a lane: unsigned ones times signed ones. Written out, since compilers copy registers around
// the builtin.
KVASIR_INLINE Bytes dot(Bytes sum, Bytes codes, Bytes terms) {
  __asm__("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(codes), "v"(terms));
  return sum;
}

KVASIR_INLINE Bytes low_nibbles(Bytes x) { return _mm512_and_si512(x, _mm512_set1_epi8(15)); }
KVASIR_INLINE Bytes high_nibbles(Bytes x) { return low_nibbles(_mm512_srli_epi16(x, 4)); }

// What a type's codes are less than the unsigned bytes that they become.
template <typename X>
constexpr int kCodeBias = X::kStorage == Storage::int4 ? 8 : 128;
template <typename X>
constexpr bool kHasHalves = X::kStorage == Storage::int4;

// A little below what three bytes hold, 127 * (2^16 + 2^8 + 1) and 2^24 - 1: the product with the largest may be rounded up.
constexpr float kQuerySteps = 8355000.0f, kWeightSteps = 16777000.0f;

// Numbers of 24 bits as bytes of which each is what is left to the next, rounded: -128 to 127 rather than 0 to 255.
KVASIR_INLINE Bytes signed_bytes(Bytes numbers) {
  const Bytes carries = _mm512_set1_epi32(0x808080);
  return _mm512_xor_si512(_mm512_add_epi32(numbers, carries), carries);
}

// Of each four numbers of 32 bits the third bytes, the second, the first, and zeros.
KVASIR_INLINE Bytes bytes_by_place(Bytes numbers) {
  const __m128i order = _mm_setr_epi8(2, 6, 10, 14, 1, 5, 9, 13, 0, 4, 8, 12, -1, -1, -1, -1);
  return _mm512_shuffle_epi8(numbers, _mm512_broadcast_i32x4(order));
}

// sum[0] * 2^16 + sum[1] * 2^8 + sum[2] as f32.
KVASIR_INLINE F joined(Bytes first, Bytes second, Bytes third) {
  const F rest = fma(_mm512_cvtepi32_ps(second), broadcast(256.0f), _mm512_cvtepi32_ps(third));
  return fma(_mm512_cvtepi32_ps(first), broadcast(65536.0f), rest);
}

}  // namespace KVASIR_ISA
}  // namespace kvasir

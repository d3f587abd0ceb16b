// Products of bytes (AVX2), by which rows of int4 meet queries and weights that are integers too: three signed bytes with one
// scale, 24 bits, as many as f32 has. Two products of a code and a byte are added up in 16 bits, where the sums of many fit,
// since codes have four; widening codes to f32 takes several times as long. Sums are exact; only their scales are f32.
#pragma once
#include "rows.h"

namespace kvasir {
namespace KVASIR_ISA {

using Bytes = __m256i;
constexpr int kChunk = 32, kTerms = 3;  // bytes of a register; of each number
constexpr int kNibbleBias = 8;          // what codes are less than the halves of bytes that they become

static inline int chunks_of(int bytes) { return (bytes + kChunk - 1) / kChunk; }
static inline int nibble_bytes(int dim) { return (dim + 1) / 2; }
static inline bool ends_whole(int dim) { return dim % (2 * kChunk) == 0; }

// A little below what three signed bytes hold, 127 * (2^16 + 2^8 + 1): the product with the largest may be rounded up.
constexpr float kNibbleSteps = 8355000.0f;

// sum + pairs of codes . terms, 16 bits a lane. Written out, since compilers first make more products than there are registers.
KVASIR_INLINE Bytes add_pairs(Bytes sum, Bytes codes, Bytes terms) {
  Bytes products;
  __asm__("vpmaddubsw %3, %2, %1\n\tvpaddw %1, %0, %0" : "+x"(sum), "=&x"(products) : "x"(codes), "xm"(terms));
  return sum;
}

KVASIR_INLINE Bytes low_nibbles(Bytes x) { return _mm256_and_si256(x, _mm256_set1_epi8(15)); }
KVASIR_INLINE Bytes high_nibbles(Bytes x) { return low_nibbles(_mm256_srli_epi16(x, 4)); }

// Bytes [at, at + 32) of the `bytes` of a row, zeros past them. Rows go on to a multiple of four bytes; memory past that is not
// touched. kWhole: it is known that none end within 32.
template <bool kWhole>
KVASIR_INLINE Bytes load_chunk(const char* row, int at, int bytes) {
  if (kWhole || bytes - at >= kChunk) return _mm256_loadu_si256((const __m256i*)(row + at));
  const Bytes places = _mm256_setr_epi32(0, 4, 8, 12, 16, 20, 24, 28);
  return _mm256_maskload_epi32((const int*)(row + at), _mm256_cmpgt_epi32(_mm256_set1_epi32(bytes - at), places));
}

// Numbers times `factor` as integers of 24 bits, in bytes of which each is what is left to the next, rounded: -128 to 127.
KVASIR_INLINE Bytes signed_bytes(F numbers, F factor) {
  const Bytes carries = _mm256_set1_epi32(0x808080);
  return _mm256_xor_si256(_mm256_add_epi32(_mm256_cvtps_epi32(mul(numbers, factor)), carries), carries);
}

// first * 2^16 + rest as f32: the second terms and the third fit 24 bits and a few together.
KVASIR_INLINE F joined(Bytes first, Bytes rest) {
  return fma(_mm256_cvtepi32_ps(first), broadcast(65536.0f), _mm256_cvtepi32_ps(rest));
}

// Asks for a row of `bytes` codes and its scale.
KVASIR_INLINE void ask_for_row(const char* row, int bytes) {
  for (int at = 0; at < bytes; at += 64) __builtin_prefetch(row + at, 0, 2);
  __builtin_prefetch(row + bytes, 0, 2);
}

}  // namespace KVASIR_ISA
}  // namespace kvasir

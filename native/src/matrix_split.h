// How numbers become sums of bf16 numbers, in pairs, as the matrix unit takes them.
#pragma once
#include "matrix_products.h"
#include "storage.h"

namespace kvasir {
namespace KVASIR_ISA {

constexpr int kMostTerms = 3;

// Codes of quantized rows are exact in one term; their scale is applied outside of the product.
static inline int terms_of(Storage storage) {
  return storage == Storage::f32 ? 3 : storage == Storage::f16 ? 2 : 1;
}
static inline int whole(int count, int multiple) { return (count + multiple - 1) / multiple * multiple; }

// Lane i of term t: the t-th term of a[i] in the low half, of b[i] in the high half. Of two terms and of one each is
// rounded: the first then leaves a 2^9-th at most, so products of two second terms are below what f16 shows. Of three only
// the last is: they carry all bits anyway, and rounding the largest numbers would make them infinite.
static inline void split_pairs(F a, F b, int terms, __m512i* out) {
  const __m512i upper = _mm512_set1_epi32((int32_t)0xffff0000), half = _mm512_set1_epi32(0x8000);
  for (int t = 0; t < terms; t++) {
    __m512i low = _mm512_castps_si512(a), high = _mm512_castps_si512(b);
    if (t == terms - 1 || terms < 3) {
      low = _mm512_add_epi32(low, half);
      high = _mm512_add_epi32(high, half);
    }
    // (high & upper) | (low >> 16)
    out[t] = _mm512_ternarylogic_epi32(high, upper, _mm512_srli_epi32(low, 16), 0xea);
    if (t == terms - 1) break;
    a = _mm512_sub_ps(a, _mm512_castsi512_ps(_mm512_and_si512(low, upper)));
    b = _mm512_sub_ps(b, _mm512_castsi512_ps(_mm512_and_si512(high, upper)));
  }
}

// Which numbers are infinite or NaN.
static inline __mmask32 special_numbers(__m512i numbers) {
  const __m512i exponent = _mm512_set1_epi16(0x7f80);
  return _mm512_cmpeq_epi16_mask(_mm512_and_si512(numbers, exponent), exponent);
}

// A row of K of bf16, in pairs (i, i + 16) of each 32. Which numbers are infinite or NaN.
static inline __mmask32 copy_key(const uint16_t* key, int dim, char* to) {
  __mmask32 special = 0;
  for (int d = 0; d < dim; d += kDepth, to += kRegister) {
    const __mmask32 used = dim - d < kDepth ? (1u << (dim - d)) - 1 : 0xffffffffu;
    const __m512i numbers = _mm512_maskz_loadu_epi16(used, key + d);
    special |= special_numbers(numbers);
    const __m512i low = _mm512_cvtepu16_epi32(_mm512_castsi512_si256(numbers));
    const __m512i high = _mm512_cvtepu16_epi32(_mm512_extracti64x4_epi64(numbers, 1));
    _mm512_storeu_si512(to, _mm512_or_si512(low, _mm512_slli_epi32(high, 16)));
  }
  return special;
}

// A pair of rows of V of bf16, which needs no splitting. Returns whether all are finite.
static inline bool pair_values(const uint16_t* first, const uint16_t* second, int dim, char* to) {
  __mmask32 special = 0;
  for (int e = 0; e < dim; e += kLanes) {
    const __mmask16 used = dim - e < kLanes ? (__mmask16)((1u << (dim - e)) - 1) : (__mmask16)0xffff;
    const __m256i a = first ? _mm256_maskz_loadu_epi16(used, first + e) : _mm256_setzero_si256();
    const __m256i b = second ? _mm256_maskz_loadu_epi16(used, second + e) : _mm256_setzero_si256();
    const __m512i both = _mm512_or_si512(_mm512_slli_epi32(_mm512_cvtepu16_epi32(b), 16), _mm512_cvtepu16_epi32(a));
    special |= special_numbers(both);
    _mm512_storeu_si512(to + e * 4, both);
  }
  return special == 0;
}

}  // namespace KVASIR_ISA
}  // namespace kvasir

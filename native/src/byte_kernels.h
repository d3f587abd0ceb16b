// What the inner loops over rows of bytes share on AVX-512 with dot products of bytes (VNNI).
#pragma once
#include "rows.h"

namespace kvasir {
namespace KVASIR_ISA {

using Bytes = __m512i;
constexpr int kChunk = 64;  // bytes of a register

static inline int chunks_of(int bytes) { return (bytes + kChunk - 1) / kChunk; }
// Bytes of codes.
template <typename X>
static inline int code_bytes(int dim) {
  return X::kStorage == Storage::int4 ? (dim + 1) / 2 : dim;
}

// Bytes [at, at + 64) of the `bytes` of a row, zeros past them; memory past them is not touched.
KVASIR_INLINE Bytes load_chunk(const char* row, int at, int bytes) {
  const int left = bytes - at;
  return left >= kChunk ? _mm512_loadu_si512(row + at) : _mm512_maskz_loadu_epi8(((__mmask64)1 << left) - 1, row + at);
}

// Turns the 4 x 4 numbers of 32 bits that lie in the same quarter of four registers, in each of the four quarters.
KVASIR_INLINE void turn_lanes(Bytes* x) {
  const Bytes a = _mm512_unpacklo_epi32(x[0], x[1]), b = _mm512_unpackhi_epi32(x[0], x[1]);
  const Bytes c = _mm512_unpacklo_epi32(x[2], x[3]), d = _mm512_unpackhi_epi32(x[2], x[3]);
  x[0] = _mm512_unpacklo_epi64(a, c);
  x[1] = _mm512_unpackhi_epi64(a, c);
  x[2] = _mm512_unpacklo_epi64(b, d);
  x[3] = _mm512_unpackhi_epi64(b, d);
}

// Scales of 16 rows. By way of memory: put into a register one by one, they would take the port that turns bytes.
KVASIR_INLINE F load_scales(const char* const* rows, int64_t scale_at) {
  float scales[kLanes];
  KVASIR_UNROLL
  for (int i = 0; i < kLanes; i++) __builtin_memcpy(scales + i, rows[i] + scale_at, 4);
  __asm__("" : "+m"(scales));
  return load(scales);
}
// Of a block, whose pointers go on to a multiple of 16; zeros after them.
template <typename X>
KVASIR_INLINE void block_scales(const char* const* rows, int count, int dim, F* scales) {
  const int64_t scale_at = scale_offset(X::kStorage, dim);
  KVASIR_UNROLL
  for (int n = 0; n < kBlockRows / kLanes; n++) {
    scales[n] = n * kLanes < count ? load_scales(rows + n * kLanes, scale_at) : zero();
  }
}

// Asks for what lies `at` bytes into so many rows, once for each cache line.
template <int kRows>
KVASIR_INLINE void prefetch_chunks(const char* const* rows, int64_t at) {
  KVASIR_UNROLL
  for (int i = 0; i < kRows; i++) __builtin_prefetch(rows[i] + at, 0, 2);
}

// out[0 .. count) += factor * x of up to four vectors.
KVASIR_INLINE void add_to_row(float* out, const F* x, F factor, int count) {
  if (count >= kChunk) {
    KVASIR_UNROLL
    for (int n = 0; n < 4; n++) store(out + n * kLanes, fma(x[n], factor, load(out + n * kLanes)));
    return;
  }
  for (int n = 0; n < 4 && n * kLanes < count; n++) {
    const int left = count - n * kLanes;
    const __mmask16 used = left >= kLanes ? (__mmask16)0xffff : (__mmask16)((1u << left) - 1);
    const F sum = fma(x[n], factor, _mm512_maskz_loadu_ps(used, out + n * kLanes));
    _mm512_mask_storeu_ps(out + n * kLanes, used, sum);
  }
}

}  // namespace KVASIR_ISA
}  // namespace kvasir

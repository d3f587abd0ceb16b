// Scores of rows of int4 by products of bytes: 32 bytes of a row, dims d and d + half in each, meet the packed queries.
#pragma once
#include "nibble_products.h"

namespace kvasir {
namespace KVASIR_ISA {

// A packed query: [chunks, 2, 3, 32] bytes, the terms that the low halves of 32 bytes meet, then the high ones; [runs, 3, 16]
// of 16 bits, what sums begin with; and the scale. A run is as many chunks as sums of 16 bits can take: with what they begin
// with they are at most 2 * 8 products of 8 and 128.
constexpr int kRunChunks = 4, kHalfChunk = kTerms * kChunk, kPackedChunk = 2 * kHalfChunk;

static inline int nibble_runs(int chunks) { return (chunks + kRunChunks - 1) / kRunChunks; }
static inline int64_t nibble_scale_at(int chunks) {
  return (int64_t)chunks * kPackedChunk + nibble_runs(chunks) * kHalfChunk;
}

// Where dim d of a query goes: `terms` of its column, [3, 32] bytes, and `begins`, [3, 16] of 16 bits, of two columns.
struct PackedDim {
  char* terms;
  int16_t* begins;

  PackedDim(char* packed, int half, int chunks, int d) {
    const int is_high = d >= half, at = is_high ? d - half : d, chunk = at / kChunk, column = at % kChunk;
    terms = packed + (2 * chunk + is_high) * kHalfChunk + column;
    begins = (int16_t*)(packed + chunks * kPackedChunk + chunk / kRunChunks * kHalfChunk) + column / 2;
  }
};

// Numbers that may be anywhere.
static void pack_dim(const int8_t* bytes, const PackedDim& to) {
  for (int t = 0; t < kTerms; t++) {
    to.terms[t * kChunk] = (char)bytes[kTerms - 1 - t];
    to.begins[t * kChunk / 2] -= kNibbleBias * bytes[kTerms - 1 - t];
  }
}

// Eight numbers side by side, the first of which begins two columns.
static void pack_eight(Bytes numbers, const PackedDim& to) {
  const __m128i in_lane = _mm_setr_epi8(2, 6, 10, 14, 1, 5, 9, 13, 0, 4, 8, 12, -1, -1, -1, -1);
  const Bytes fours = _mm256_shuffle_epi8(numbers, _mm256_broadcastsi128_si256(in_lane));
  const Bytes eights = _mm256_permutevar8x32_epi32(fours, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
  const Bytes pairs = _mm256_maddubs_epi16(_mm256_set1_epi8(kNibbleBias), eights);
  int64_t terms[4], sums[4];
  _mm256_storeu_si256((Bytes*)terms, eights);
  _mm256_storeu_si256((Bytes*)sums, pairs);
  for (int t = 0; t < kTerms; t++) {
    __builtin_memcpy(to.terms + t * kChunk, terms + t, 8);
    __m128i* begins = (__m128i*)(to.begins + t * kChunk / 2);
    _mm_storel_epi64(begins, _mm_sub_epi16(_mm_loadl_epi64(begins), _mm_loadl_epi64((const __m128i*)(sums + t))));
  }
}

// The scale is NaN where a number of the query is none: no integer means anything then.
static void pack_nibbles(const float* q, int dim, char* packed) {
  const int half = nibble_bytes(dim), chunks = chunks_of(half);
  const float largest = largest_of(q, dim), scale = largest / kNibbleSteps;
  const F factor = broadcast(scale > 0.0f && largest < __builtin_inff() ? kNibbleSteps / largest : 0.0f);
  __builtin_memset(packed, 0, nibble_scale_at(chunks));
  for (int d = 0; d < dim; d += kLanes) {
    const int left = dim - d;
    const Bytes numbers = signed_bytes(left < kLanes ? load_part(q + d, left) : load(q + d), factor);
    if (left >= kLanes && half % kLanes == 0) {
      pack_eight(numbers, PackedDim(packed, half, chunks, d));
      continue;
    }
    int8_t bytes[kLanes][4];
    _mm256_storeu_si256((Bytes*)bytes, numbers);
    for (int i = 0; i < kLanes && i < left; i++) pack_dim(bytes[i], PackedDim(packed, half, chunks, d + i));
  }
  __builtin_memcpy(packed + nibble_scale_at(chunks), &scale, 4);
}

// sums[g, i] = products of the chunks [first, last) of kRows rows with the queries, as f32 by lane.
template <int kGroup, int kRows, bool kWhole>
KVASIR_INLINE void multiply_run(const char* const* rows, int bytes, const PackedQuery& query, const char* begins, int first,
                                int last, F (*sums)[kRows]) {
  Bytes sum[kGroup][kRows][kTerms];
  KVASIR_UNROLL
  for (int g = 0; g < kGroup; g++) {
    KVASIR_UNROLL
    for (int i = 0; i < kRows; i++) {
      KVASIR_UNROLL
      for (int t = 0; t < kTerms; t++) sum[g][i][t] = _mm256_loadu_si256((const Bytes*)(begins + g * query.stride) + t);
    }
  }
  for (int chunk = first; chunk < last; chunk++) {
    const char* terms = query.at + (int64_t)chunk * kPackedChunk;
    KVASIR_UNROLL
    for (int i = 0; i < kRows; i++) {
      const Bytes both = load_chunk<kWhole>(rows[i], chunk * kChunk, bytes);
      KVASIR_UNROLL
      for (int half = 0; half < 2; half++) {
        const Bytes codes = half ? high_nibbles(both) : low_nibbles(both);
        KVASIR_UNROLL
        for (int g = 0; g < kGroup; g++) {
          const Bytes* of_half = (const Bytes*)(terms + g * query.stride + half * kHalfChunk);
          KVASIR_UNROLL
          for (int t = 0; t < kTerms; t++) sum[g][i][t] = add_pairs(sum[g][i][t], codes, _mm256_loadu_si256(of_half + t));
        }
      }
    }
  }
  KVASIR_UNROLL
  for (int g = 0; g < kGroup; g++) {
    KVASIR_UNROLL
    for (int i = 0; i < kRows; i++) {
      const Bytes one = _mm256_set1_epi16(1), *terms = sum[g][i];
      const Bytes second = _mm256_madd_epi16(terms[1], _mm256_set1_epi16(256)), third = _mm256_madd_epi16(terms[2], one);
      sums[g][i] = joined(_mm256_madd_epi16(terms[0], one), _mm256_add_epi32(second, third));
    }
  }
}

// scores[g, j] = q[g] . k[j], scales and all, for up to four heads.
template <int kGroup, bool kAhead, bool kWhole>
static void score_nibbles(const VisibleRows<kBlockRows, false>& rows, const PackedQuery& query, int dim, float* scores) {
  constexpr int kRows = 4 / kGroup;  // at a time: twelve sums
  const int bytes = nibble_bytes(dim), chunks = chunks_of(bytes), scale_at = (int)scale_offset(Storage::int4, dim);
  const char* begins = query.at + (int64_t)chunks * kPackedChunk;
  float scales[kGroup];
  for (int g = 0; g < kGroup; g++) __builtin_memcpy(scales + g, query.at + g * query.stride + nibble_scale_at(chunks), 4);
  for (int j = 0; j < rows.count; j += kLanes) {
    F parts[kGroup][kLanes];
    float of_rows[kLanes];
    for (int i = 0; i < kLanes; i += kRows) {
      for (int r = i; r < i + kRows; r++) {
        if (kAhead) ask_for_row(rows.values[j + r], scale_at);
        __builtin_memcpy(of_rows + r, rows.keys[j + r] + scale_at, 4);
      }
      for (int run = 0; run < nibble_runs(chunks); run++) {
        F sums[kGroup][kRows];
        const int first = run * kRunChunks, last = chunks < first + kRunChunks ? chunks : first + kRunChunks;
        multiply_run<kGroup, kRows, kWhole>(rows.keys + j + i, bytes, query, begins + run * kHalfChunk, first, last, sums);
        for (int n = 0; n < kGroup * kRows; n++) {
          F& part = parts[n / kRows][i + n % kRows];
          part = run == 0 ? sums[n / kRows][n % kRows] : add(part, sums[n / kRows][n % kRows]);
        }
      }
    }
    for (int g = 0; g < kGroup; g++) {
      store(scores + g * kBlockRows + j, mul(mul(reduce_each(parts[g]), broadcast(scales[g])), load(of_rows)));
    }
  }
}

}  // namespace KVASIR_ISA
}  // namespace kvasir

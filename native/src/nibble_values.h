// Weighted sums of rows of int4 by products of bytes: those of two rows are interleaved, so that a lane of 16 bits is a dim
// and sums two rows; weights are broadcast.
#pragma once
#include "nibble_products.h"

namespace kvasir {
namespace KVASIR_ISA {

// As many rows as sums of 16 bits can take. Codes go in as the halves of bytes less 7, so that with terms of -128 to 127 sums
// stay within 32 * -1024 and 32 * 1016; what is left of the bias is taken off afterwards.
constexpr int kRunRows = 32, kRuns = kBlockRows / kRunRows, kSumBias = kNibbleBias - 1;

// Weights of a block for one head as integers: value = step * (term 0 * 2^16 + term 1 * 2^8 + term 2).
struct NibbleWeights {
  alignas(32) int16_t pairs[kBlockRows / 2][4];  // of two rows each term, as bytes; the last is 0
  int32_t totals[kRuns][kTerms];
  float step;
};

// Weights times scales. Returns false where they can't be: NaN, infinite, negative, or so small that their scale would be
// infinite.
static bool split_weights(const float* weights, const float* scales, NibbleWeights* out) {
  F each[kBlockRows / kLanes], most = zero();
  for (int n = 0; n < kBlockRows / kLanes; n++) {
    each[n] = mul(load(weights + n * kLanes), load(scales + n * kLanes));
    if (_mm256_movemask_ps(each[n]) || any_above(each[n], broadcast(3.4e38f))) return false;  // NaN counts as above
    most = max(most, each[n]);
  }
  float tops[kLanes], top = 0.0f;
  store(tops, most);
  for (int i = 0; i < kLanes; i++) top = tops[i] > top ? tops[i] : top;
  if (top > 0.0f && top < 1e-30f) return false;
  const F factor = broadcast(top > 0.0f ? kNibbleSteps / top : 0.0f);
  const __m128i in_lane = _mm_setr_epi8(2, 6, 1, 5, 0, 4, -1, -1, 10, 14, 9, 13, 8, 12, -1, -1);
  const Bytes order = _mm256_broadcastsi128_si256(in_lane);
  for (int run = 0; run < kRuns; run++) {
    Bytes sums = _mm256_setzero_si256();
    for (int n = run * kRunRows / kLanes; n < (run + 1) * kRunRows / kLanes; n++) {
      const Bytes terms = _mm256_shuffle_epi8(signed_bytes(each[n], factor), order);
      _mm256_store_si256((Bytes*)out->pairs[n * kLanes / 2], terms);
      sums = _mm256_add_epi16(sums, _mm256_maddubs_epi16(_mm256_set1_epi8(1), terms));
    }
    int16_t of_pairs[4][4];
    _mm256_storeu_si256((Bytes*)of_pairs, sums);
    for (int t = 0; t < kTerms; t++) out->totals[run][t] = of_pairs[0][t] + of_pairs[1][t] + of_pairs[2][t] + of_pairs[3][t];
  }
  out->step = top / kNibbleSteps;
  return true;
}

// out[0 .. count) += step * sums of 32 dims: those of [0, 8) and [16, 24) lie in sums[., 0], the others in sums[., 1].
template <bool kWhole>
KVASIR_INLINE void add_run(const Bytes (&sums)[kTerms][2], const int32_t* totals, float step, float* out, int count) {
  float few[kChunk];
  float* to = !kWhole && count < kChunk ? few : out;
  for (int n = 0; n < kChunk / kLanes; n++) {
    Bytes wide[kTerms];
    KVASIR_UNROLL
    for (int t = 0; t < kTerms; t++) {
      const Bytes words = sums[t][n % 2];
      const __m128i half = n < 2 ? _mm256_castsi256_si128(words) : _mm256_extracti128_si256(words, 1);
      wide[t] = _mm256_sub_epi32(_mm256_cvtepi16_epi32(half), _mm256_set1_epi32(totals[t]));
    }
    const F before = !kWhole && count < kChunk ? zero() : load(out + n * kLanes);
    const F sum = joined(wide[0], _mm256_add_epi32(_mm256_slli_epi32(wide[1], 8), wide[2]));
    store(to + n * kLanes, fma(sum, broadcast(step), before));
  }
  for (int i = 0; !kWhole && count < kChunk && i < count; i++) out[i] += few[i];
}

// out[e] += weights . codes for up to 32 dims: pairs of rows as two vectors of interleaved codes, which `read` yields.
template <bool kWhole, typename Read>
KVASIR_INLINE void add_row_pairs(const Read& read, int num_pairs, const NibbleWeights& weights, float* out, int count) {
  for (int run = 0, first = 0; first < num_pairs; run++, first += kRunRows / 2) {
    const int last = num_pairs < first + kRunRows / 2 ? num_pairs : first + kRunRows / 2;
    Bytes sums[kTerms][2];
    for (int t = 0; t < kTerms; t++) {
      sums[t][0] = sums[t][1] = _mm256_set1_epi16((int16_t)(-kSumBias * weights.totals[run][t]));
    }
    for (int p = first; p < last; p++) {
      Bytes codes[2];
      read(p, codes);
      KVASIR_UNROLL
      for (int t = 0; t < kTerms; t++) {
        const Bytes weight = _mm256_set1_epi16(weights.pairs[p][t]);
        sums[t][0] = add_pairs(sums[t][0], codes[0], weight);
        sums[t][1] = add_pairs(sums[t][1], codes[1], weight);
      }
    }
    add_run<kWhole>(sums, weights.totals[run], weights.step, out, count);
  }
}

// Returns false where the weights are such that it has to be done otherwise; nothing has happened then.
template <int kGroup, bool kAhead, bool kWhole>
static bool add_nibbles(const VisibleRows<kBlockRows, false>& rows, const char* const* ahead, const float* weights, float* out,
                        int dim) {
  float scales[kBlockRows];
  scales_of_rows<Int4>(rows.values, rows.count, dim, scales);
  NibbleWeights split[kGroup];
  for (int g = 0; g < kGroup; g++) {
    if (!split_weights(weights + g * kBlockRows, scales, &split[g])) return false;
  }
  const int bytes = nibble_bytes(dim), pairs = (rows.count + 1) / 2, stride = padded(dim);
  const int last_asker = kGroup > 1 || bytes > kChunk ? 3 : 1;  // each of the first passes asks for a part of the rows ahead
  int pass = 0;
  const auto ask = [&](int p) __attribute__((always_inline)) {
    if (!kAhead || (p & last_asker) != pass) return;
    ask_for_row(ahead[2 * p], (int)scale_offset(Storage::int4, dim));
    ask_for_row(ahead[2 * p + 1], (int)scale_offset(Storage::int4, dim));
  };
  for (int at = 0; at < bytes; at += kChunk) {
    // The first head interleaves the rows for the others.
    Bytes low[kGroup > 1 ? kBlockRows / 2 : 1][2], high[kBlockRows / 2][2];
    const auto read_rows = [&](int p, Bytes* codes) __attribute__((always_inline)) {
      ask(p);
      const Bytes a = load_chunk<kWhole>(rows.values[2 * p], at, bytes);
      const Bytes b = load_chunk<kWhole>(rows.values[2 * p + 1], at, bytes);
      const Bytes both[2] = {_mm256_unpacklo_epi8(a, b), _mm256_unpackhi_epi8(a, b)};
      for (int n = 0; n < 2; n++) {
        high[p][n] = high_nibbles(both[n]);
        codes[n] = low_nibbles(both[n]);
        if (kGroup > 1) low[p][n] = codes[n];
      }
    };
    const auto read_again = [&](const Bytes(*from)[2]) {
      return [&ask, from](int p, Bytes* codes) __attribute__((always_inline)) {
        ask(p);
        codes[0] = from[p][0];
        codes[1] = from[p][1];
      };
    };
    for (int g = 0; g < kGroup; g++) {
      float* row = out + g * stride + at;
      if (g == 0) add_row_pairs<kWhole>(read_rows, pairs, split[g], row, bytes - at);
      else add_row_pairs<kWhole>(read_again(low), pairs, split[g], row, bytes - at);
      pass++;
      add_row_pairs<kWhole>(read_again(high), pairs, split[g], row + bytes, dim - bytes - at);
      pass++;
    }
  }
  return true;
}

}  // namespace KVASIR_ISA
}  // namespace kvasir

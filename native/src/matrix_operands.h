// What the matrix unit multiplies: queries, rows of K and V, and weights, split and packed register by register, so that a
// load touches consecutive cache lines.
#pragma once
#include "matrix_products.h"
#include "matrix_split.h"

namespace kvasir {
namespace KVASIR_ISA {

constexpr int kQueryRegisters = kStripQueries / kEdge, kRowRegisters = kTileBlock / kEdge;
constexpr int kRowSteps = kTileBlock / kDepth;
static_assert(kPanel == kStripQueries, "rows of scores and sums are 64 numbers apart");

// Of one strip.
struct MatrixQueries {
  char* at;       // [terms, D / 32, 4] registers of 16 pairs of dims x 16 queries
  bool is_split;  // all are finite
};

struct MatrixTile {
  char* keys;     // [terms, 8, D / 32] registers of 16 rows x 32 dims
  char* values;   // [terms, E / 16, 4] registers of 16 dims x 32 rows
  char* weights;  // [terms, 4, 4] registers of 16 pairs of rows x 16 queries
  char* pairs;    // [terms, 16, E] pairs of rows of V
  float* row;     // [2, D or E]
  float *key_scales, *value_scales;  // [128] of quantized rows
  int query_terms, depth, width;     // depth and width: D and E up to whole tile registers
  int steps;                         // D / 32
  bool is_used;
  // Of the block that is there.
  bool keys_packed, values_packed;
  Storage key_storage, value_storage;

  static int most(int a, int b) { return a > b ? a : b; }

  // Scores lose nothing, since large ones would show it in their weights; sums of V are rounded to the outputs.
  Terms key_products(Storage storage) const { return Terms::all(terms_of(storage), query_terms); }
  Terms value_products(Storage storage) const { return Terms::rounded(terms_of(storage), weight_terms(storage)); }
  // Whether products with rows of a storage pay.
  bool takes_keys(Storage storage) const { return key_products(storage).products() <= kMostProducts; }
  bool takes_values(Storage storage) const { return value_products(storage).products() <= kMostProducts; }
  // Weights are as exact as the queries; times the scale of a row, which no output is rounded to, as two terms at least.
  int weight_terms(Storage storage) const { return is_quantized(storage) ? most(query_terms, 2) : query_terms; }

  void place(const AttendArgs& args, Arena& arena) {
    // Turning a query fills the bits that its storage leaves free; transforming it adds up all of them.
    const int turned = args.rotation.cos && args.query_storage != Storage::f32;
    query_terms = args.is_transformed ? kMostTerms : terms_of(args.query_storage) + turned;
    int key_terms = 0, value_terms = 0;
    for (int s = 0; s < args.num_segments; s++) {
      const Segment& segment = args.segments[s];
      if (takes_keys(segment.key_storage)) key_terms = most(key_terms, terms_of(segment.key_storage));
      if (takes_values(segment.value_storage)) value_terms = most(value_terms, terms_of(segment.value_storage));
    }
    is_used = key_terms + value_terms > 0;
    keys_packed = values_packed = false;
    if (!is_used) return;
    depth = whole(args.head_dim, kDepth);
    width = whole(args.value_dim, kEdge);
    steps = depth / kDepth;
    keys = arena.take<char>((int64_t)key_terms * kRowRegisters * steps * kRegister);
    values = arena.take<char>((int64_t)value_terms * width / kEdge * kRowSteps * kRegister);
    weights = arena.take<char>((int64_t)most(query_terms, 2) * kRowSteps * kQueryRegisters * kRegister);
    pairs = arena.take<char>((int64_t)value_terms * kEdge * width * 4);
    row = arena.take<float>(2 * most(depth, width));
    key_scales = arena.take<float>(kTileBlock);
    value_scales = arena.take<float>(kTileBlock);
  }

  void place_queries(Arena& arena, MatrixQueries* queries) const {
    if (is_used) queries->at = arena.take<char>((int64_t)query_terms * steps * kQueryRegisters * kRegister);
  }

  // q [D, 64] f32; columns from `columns` on count as zeros. Pairs along the depth are (i, i + 16) of each 32, which is
  // how rows of K come out.
  void pack_queries(const AttendArgs& args, const float* q, int columns, MatrixQueries* queries) const {
    if (!is_used) return;
    const int64_t term_size = (int64_t)steps * kQueryRegisters * kRegister;
    F sum = zero();
    for (int pair = 0; pair < depth / 2; pair++) {
      const int first = pair / kEdge * kDepth + pair % kEdge, second = first + kEdge;
      for (int m = 0; m < kStripQueries; m += kLanes) {
        const bool is_there = m < columns;
        const F a = is_there && first < args.head_dim ? load(q + first * kStripQueries + m) : zero();
        const F b = is_there && second < args.head_dim ? load(q + second * kStripQueries + m) : zero();
        sum = fma(a, zero(), fma(b, zero(), sum));
        __m512i terms[kMostTerms];
        split_pairs(a, b, query_terms, terms);
        for (int t = 0; t < query_terms; t++) {
          const int64_t at = (int64_t)pair / kEdge * kQueryRegisters + m / kEdge;
          _mm512_storeu_si512(queries->at + t * term_size + at * kRegister + pair % kEdge * 64, terms[t]);
        }
      }
    }
    queries->is_split = reduce_add(sum) == 0.0f;
  }

  void pack_rows(const AttendArgs& args, const TileRows& rows) {
    if (!is_used) return;
    key_storage = rows.key_storage;
    value_storage = rows.value_storage;
    keys_packed = takes_keys(key_storage) && pack_keys(args, rows);
    values_packed = takes_values(value_storage) && pack_values(args, rows);
  }

  // scores[j, m] = k[j] . q[m] for the rows of a range. `scores`: [128, 64].
  bool score(const MatrixQueries& queries, const RowRange& range, int columns, float* scores) const {
    if (!keys_packed || !queries.is_split) return false;
    const int rows = whole(range.end - range.begin, kEdge);
    const int64_t beside = (int64_t)steps * kRegister;
    const Operand left = {keys + range.begin / kEdge * beside, kRowRegisters * beside, kRegister, beside};
    const Operand right = {queries.at, (int64_t)steps * kQueryRegisters * kRegister, kQueryRegisters * kRegister, kRegister};
    multiply_terms<false>(left, right, key_products(key_storage), rows, whole(columns, kEdge), steps,
                          scores + range.begin * kStripQueries, kStripQueries);
    for (int j = range.begin; is_quantized(key_storage) && j < range.end; j++) {
      float* row = scores + (int64_t)j * kStripQueries;
      for (int m = 0; m < columns; m += kLanes) store(row + m, mul(load(row + m), broadcast(key_scales[j])));
    }
    return true;
  }

  // Weights of rows j (even) and j + 1 for 16 queries from m on, times the scales of their rows where those are quantized.
  void put_weights(int j, int m, F first, F second) const {
    if (is_quantized(value_storage)) {
      first = mul(first, broadcast(value_scales[j]));
      second = mul(second, broadcast(value_scales[j + 1]));
    }
    __m512i split[kMostTerms];
    const int terms = weight_terms(value_storage);
    split_pairs(first, second, terms, split);
    char* to = weights + (int64_t)(j / kDepth * kQueryRegisters + m / kEdge) * kRegister + j % kDepth * 32;
    for (int t = 0; t < terms; t++) {
      _mm512_storeu_si512(to + (int64_t)t * kRowSteps * kQueryRegisters * kRegister, split[t]);
    }
  }

  // Those of rows from `end` on are zero.
  void end_weights(int end, int m) const {
    for (int j = whole(end, 2); j < whole(end, kDepth); j += 2) put_weights(j, m, zero(), zero());
  }

  // out[e, m] += sum_j v[j, e] weights[j, m] for the rows of a range; out: [E up to a whole tile register, 64].
  void add(const RowRange& range, int columns, float* out) const {
    const int first = range.begin / kDepth, count = whole(range.end, kDepth) / kDepth - first;
    const int64_t beside = kRowSteps * kRegister, step = kQueryRegisters * kRegister;
    const Operand left = {values + first * kRegister, width / kEdge * beside, kRegister, beside};
    const Operand right = {weights + first * step, kRowSteps * step, step, kRegister};
    multiply_terms<true>(left, right, value_products(value_storage), width, whole(columns, kEdge), count, out, kStripQueries);
  }

 private:
  // Whether all are finite.
  bool pack_keys(const AttendArgs& args, const TileRows& all) {
    const int64_t term_size = (int64_t)kRowRegisters * steps * kRegister;
    const int terms = terms_of(key_storage), rows = whole(all.count, kEdge);
    F sum = zero();
    __mmask32 special = 0;
    for (int d = 0; d < depth; d += kLanes) store(row + d, zero());
    for (int j = 0; j < rows; j++) {
      // Rows past the last repeat it: nothing reads their scores.
      const char* key = all.keys[j < all.count ? j : all.count - 1];
      char* to = keys + (int64_t)(j / kEdge) * steps * kRegister + j % kEdge * 64;
      if (key_storage == Storage::bf16) {
        special |= copy_key((const uint16_t*)key, args.head_dim, to);
        continue;
      }
      key_scales[j] = kRowKernels[(int)key_storage].widen_codes(row, key, args.head_dim);
      sum = fma(broadcast(key_scales[j]), zero(), sum);
      for (int s = 0; s < steps; s++) {
        const F a = load(row + s * kDepth), b = load(row + s * kDepth + kEdge);
        sum = fma(a, zero(), fma(b, zero(), sum));
        __m512i split[kMostTerms];
        split_pairs(a, b, terms, split);
        for (int t = 0; t < terms; t++) {
          _mm512_storeu_si512(to + t * term_size + (int64_t)s * kRegister, split[t]);
        }
      }
    }
    return special == 0 && reduce_add(sum) == 0.0f;
  }

  // Whether all are finite.
  bool pack_values(const AttendArgs& args, const TileRows& all) {
    bool finite = true;
    for (int j = 0; j < all.count; j += kDepth) {
      for (int pair = 0; pair < kEdge; pair++) finite &= pack_pair(args, all, j + 2 * pair, pair);
      for (int t = 0; t < terms_of(value_storage); t++) transpose_pairs(t, j / kDepth);
    }
    return finite;
  }

  // Rows j and j + 1, zeros past the last. Whether all are finite.
  bool pack_pair(const AttendArgs& args, const TileRows& all, int j, int pair) {
    const char *first = j < all.count ? all.values[j] : nullptr, *second = j + 1 < all.count ? all.values[j + 1] : nullptr;
    char* to = pairs + (int64_t)pair * width * 4;
    if (value_storage == Storage::bf16) return pair_values((const uint16_t*)first, (const uint16_t*)second, args.value_dim, to);
    value_scales[j] = value_scales[j + 1] = 0.0f;
    float *a = row, *b = row + width;
    for (int e = 0; e < 2 * width && !(first && second); e += kLanes) store(row + e, zero());
    const auto widen = kRowKernels[(int)value_storage].widen_codes;
    if (first) value_scales[j] = widen(a, first, args.value_dim);
    if (second) value_scales[j + 1] = widen(b, second, args.value_dim);
    F sum = broadcast((value_scales[j] + value_scales[j + 1]) * 0.0f);
    const int terms = terms_of(value_storage);
    for (int e = 0; e < width; e += kLanes) {
      const F left = load(a + e), right = load(b + e);
      sum = fma(left, zero(), fma(right, zero(), sum));
      __m512i split[kMostTerms];
      split_pairs(left, right, terms, split);
      for (int t = 0; t < terms; t++) _mm512_storeu_si512(to + (int64_t)t * kEdge * width * 4 + e * 4, split[t]);
    }
    return reduce_add(sum) == 0.0f;
  }

  // 16 pairs of rows to registers of 16 dims.
  void transpose_pairs(int term, int step) const {
    const char* from = pairs + (int64_t)term * kEdge * width * 4;
    char* to = values + (int64_t)term * width / kEdge * kRowSteps * kRegister + step * kRegister;
    for (int e = 0; e < width; e += kEdge, to += kRowSteps * kRegister) {
      F block[kEdge];
      for (int pair = 0; pair < kEdge; pair++) block[pair] = load((const float*)(from + (int64_t)pair * width * 4) + e);
      transpose(block);
      for (int i = 0; i < kEdge; i++) store((float*)(to + i * 64), block[i]);
    }
  }
};

}  // namespace KVASIR_ISA
}  // namespace kvasir

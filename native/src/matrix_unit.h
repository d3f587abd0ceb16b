// Matrix products of a tile on a unit that multiplies bf16 (AMX, or the dot products of AVX512-BF16), without the
// precision of bf16: a number is split into a sum of bf16 numbers (f32: three, f16: two, bf16: one), and products of two
// sums are made term by term, leaving out those below the last bit. Sums are f32. Where a block holds infinities or NaN,
// which don't split, or where so many products would take longer than those of f32, the caller takes its own way.
#pragma once
#include "row_kernels.h"

namespace kvasir {
namespace KVASIR_ISA {

constexpr int kTileBlock = 128;  // rows of a tile step
using TileRows = VisibleRows<kTileBlock, true>;

#if !defined(KVASIR_AMX) && !defined(KVASIR_BF16_DOT)

// No such unit.
struct MatrixTile {
  static void place(const AttendArgs&, Arena&, MatrixTile*) {}
};
struct MatrixUnit {};
static inline void split_queries(const AttendArgs&, MatrixTile&, const float*, int) {}
static inline bool score_on_unit(const AttendArgs&, MatrixTile&, const TileRows&, bool, int, float*) { return false; }
static inline bool add_on_unit(const AttendArgs&, MatrixTile&, const TileRows&, const float*, int, float*) { return false; }

#else

constexpr int kEdge = 16, kDepth = 32;  // of a tile register: 16 rows of 32 bf16 numbers, or of 16 f32 sums
constexpr int kMostTerms = 3, kMatrixColumns = 64, kMatrixRows = 128;
constexpr int kQueryRegisters = kMatrixColumns / kEdge, kRowRegisters = kMatrixRows / kEdge;
constexpr int kRowSteps = kMatrixRows / kDepth;

// Codes of quantized rows are exact in one term; their scale is applied outside of the product.
static inline int terms_of(Storage storage) {
  return storage == Storage::f32 ? 3 : storage == Storage::f16 ? 2 : 1;
}
static inline int whole(int count, int multiple) { return (count + multiple - 1) / multiple * multiple; }

// Products of terms i and j count up to this i + j: three terms carry 24 bits, which those beyond don't reach; two carry
// 16, where the last still shows.
static inline int last_order(int a_terms, int b_terms) {
  const int most = a_terms > b_terms ? a_terms : b_terms;
  return most == 2 ? 2 : most - 1;
}

// How many products of terms pay.
#if defined(KVASIR_AMX)
constexpr int kMostProducts = 4;
#else
constexpr int kMostProducts = 1;
struct MatrixUnit {};
#endif

#if defined(KVASIR_AMX)
// The tile registers of this thread, for as long as it lives.
struct MatrixUnit {
  MatrixUnit() {
    struct alignas(64) {
      uint8_t palette = 1, start_row = 0, reserved[14] = {};
      uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
      uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
    } configuration;
    _tile_loadconfig(&configuration);
  }
  ~MatrixUnit() { _tile_release(); }
};
#endif

constexpr int kRegister = 1024;  // bytes of a tile register: 16 rows of 64

// Operands of one tile, split, register by register so that a load touches consecutive cache lines.
struct MatrixTile {
  char* queries;  // [terms, D / 32, 4] registers of 16 pairs of dims x 16 queries
  char* keys;     // [terms, 8, D / 32] registers of 16 rows x 32 dims
  char* values;   // [terms, 4, E / 16] registers of 16 pairs of rows x 16 dims
  char* weights;  // [terms, 4, 4] registers of 16 queries x 32 rows
  float* row;         // [2, D or E]
  float* scales;      // [128] of quantized rows
  int query_terms, depth, width;  // depth and width: D and E up to whole tile registers
  int steps, value_registers;
  bool is_used, queries_split;
  bool is_natural;  // K is bf16 throughout: pairs of its numbers are used as they lie

  static int products(int a_terms, int b_terms) {
    int count = 0;
    for (int i = 0; i < a_terms; i++) {
      for (int j = 0; j < b_terms; j++) count += i + j <= last_order(a_terms, b_terms);
    }
    return count;
  }

  static int most(int a, int b) { return a > b ? a : b; }

  // Whether products with rows of a storage pay.
  bool takes(Storage storage) const { return products(query_terms, terms_of(storage)) <= kMostProducts; }
  bool takes_values(Storage storage) const {
    return products(weight_terms(storage), terms_of(storage)) <= kMostProducts;
  }
  // Weights are as exact as the queries; times the scale of a row, which no output is rounded to, as two terms at least.
  int weight_terms(Storage storage) const { return is_quantized(storage) ? most(query_terms, 2) : query_terms; }

  static void place(const AttendArgs& args, Arena& arena, MatrixTile* tile) {
    // Turning a query fills the bits that its storage leaves free; transforming it adds up all of them.
    const int turned = args.rotation.cos && args.query_storage != Storage::f32;
    tile->query_terms = args.is_transformed ? kMostTerms : terms_of(args.query_storage) + turned;
    int key_terms = 0, value_terms = 0;
    tile->is_natural = true;
    for (int s = 0; s < args.num_segments; s++) {
      const Segment& segment = args.segments[s];
      if (tile->takes(segment.key_storage)) key_terms = most(key_terms, terms_of(segment.key_storage));
      if (tile->takes_values(segment.value_storage)) value_terms = most(value_terms, terms_of(segment.value_storage));
      tile->is_natural = tile->is_natural && segment.key_storage == Storage::bf16;
    }
    tile->is_used = key_terms + value_terms > 0;
    if (!tile->is_used) return;
    tile->depth = whole(args.head_dim, kDepth);
    tile->width = whole(args.value_dim, kEdge);
    tile->steps = tile->depth / kDepth;
    tile->value_registers = tile->width / kEdge;
    tile->queries = arena.take<char>((int64_t)tile->query_terms * tile->steps * kQueryRegisters * kRegister);
    tile->keys = arena.take<char>((int64_t)key_terms * kRowRegisters * tile->steps * kRegister);
    tile->values = arena.take<char>((int64_t)value_terms * kRowSteps * tile->value_registers * kRegister);
    tile->weights = arena.take<char>((int64_t)most(tile->query_terms, 2) * kQueryRegisters * kRowSteps * kRegister);
    tile->row = arena.take<float>(2 * (tile->depth > tile->width ? tile->depth : tile->width));
    tile->scales = arena.take<float>(kMatrixRows);
  }
};

// Lane i of term t: the t-th term of a[i] in the low half, of b[i] in the high half. The last term is rounded.
static inline void split_pairs(F a, F b, int terms, __m512i* out) {
  const __m512i upper = _mm512_set1_epi32((int32_t)0xffff0000), half = _mm512_set1_epi32(0x8000);
  for (int t = 0; t < terms; t++) {
    __m512i low = _mm512_castps_si512(a), high = _mm512_castps_si512(b);
    if (t == terms - 1) {
      low = _mm512_add_epi32(low, half);
      high = _mm512_add_epi32(high, half);
    }
    // (high & upper) | (low >> 16)
    out[t] = _mm512_ternarylogic_epi32(high, upper, _mm512_srli_epi32(low, 16), 0xea);
    a = _mm512_sub_ps(a, _mm512_castsi512_ps(_mm512_and_si512(low, upper)));
    b = _mm512_sub_ps(b, _mm512_castsi512_ps(_mm512_and_si512(high, upper)));
  }
}

// Which numbers make a pair along the depth of q . k: neighbours where K is used as it lies, else (i, i + 16) of each
// 32, which is how split rows come out.
static inline int pair_dim(bool is_natural, int pair, int second) {
  if (is_natural) return 2 * pair + second;
  return pair / kEdge * kDepth + pair % kEdge + second * kEdge;
}

// q [D, 64] f32; columns from `columns` on count as zeros.
static void split_queries(const AttendArgs& args, MatrixTile& tile, const float* q, int columns) {
  if (!tile.is_used) return;
  const int64_t term_size = (int64_t)tile.steps * kQueryRegisters * kRegister;
  F sum = zero();
  for (int pair = 0; pair < tile.depth / 2; pair++) {
    const int first = pair_dim(tile.is_natural, pair, 0), second = pair_dim(tile.is_natural, pair, 1);
    for (int m = 0; m < kMatrixColumns; m += kLanes) {
      const bool is_used = m < columns;
      const F a = is_used && first < args.head_dim ? load(q + (int64_t)first * kMatrixColumns + m) : zero();
      const F b = is_used && second < args.head_dim ? load(q + (int64_t)second * kMatrixColumns + m) : zero();
      sum = fma(a, zero(), fma(b, zero(), sum));
      __m512i terms[kMostTerms];
      split_pairs(a, b, tile.query_terms, terms);
      for (int t = 0; t < tile.query_terms; t++) {
        const int64_t at = (int64_t)pair / kEdge * kQueryRegisters + m / kEdge;
        _mm512_storeu_si512(tile.queries + t * term_size + at * kRegister + pair % kEdge * 64, terms[t]);
      }
    }
  }
  tile.queries_split = reduce_add(sum) == 0.0f;
}

// One operand: its first term, and the distances, in bytes, to the next term, to the next step along the depth, to the
// register beside, and between the rows of a register.
struct Operand {
  const char* at;
  int64_t term, step, beside, row;
};

#if defined(KVASIR_AMX)

template <int kRows, int kColumns>
static inline void load_sums(const char* c, int64_t row) {
  _tile_loadd(0, c, row);
  if (kColumns > 1) _tile_loadd(1, c + 64, row);
  if (kRows > 1) _tile_loadd(2, c + kEdge * row, row);
  if (kRows > 1 && kColumns > 1) _tile_loadd(3, c + kEdge * row + 64, row);
}

template <int kRows, int kColumns>
static inline void store_sums(char* c, int64_t row) {
  _tile_stored(0, c, row);
  if (kColumns > 1) _tile_stored(1, c + 64, row);
  if (kRows > 1) _tile_stored(2, c + kEdge * row, row);
  if (kRows > 1 && kColumns > 1) _tile_stored(3, c + kEdge * row + 64, row);
}

// c [16 kRows, 16 kColumns] = or += the products of the terms of a and b, over `steps` times 32 of depth.
template <int kRows, int kColumns, bool kAccumulate>
static inline void multiply_registers(const Operand& a, int a_terms, const Operand& b, int b_terms, int steps, char* c,
                                      int64_t c_row) {
  const int last = last_order(a_terms, b_terms);
  if (kAccumulate) {
    load_sums<kRows, kColumns>(c, c_row);
  } else {
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
  }
  for (int s = 0; s < steps; s++) {
    for (int i = 0; i < a_terms; i++) {
      const char* left = a.at + i * a.term + s * a.step;
      _tile_loadd(4, left, a.row);
      if (kRows > 1) _tile_loadd(5, left + a.beside, a.row);
      for (int j = 0; j < b_terms && i + j <= last; j++) {
        const char* right = b.at + j * b.term + s * b.step;
        _tile_loadd(6, right, b.row);
        if (kColumns > 1) _tile_loadd(7, right + b.beside, b.row);
        _tile_dpbf16ps(0, 4, 6);
        if (kColumns > 1) _tile_dpbf16ps(1, 4, 7);
        if (kRows > 1) _tile_dpbf16ps(2, 5, 6);
        if (kRows > 1 && kColumns > 1) _tile_dpbf16ps(3, 5, 7);
      }
    }
  }
  store_sums<kRows, kColumns>(c, c_row);
}

// c [rows, columns] in whole tile registers; c_stride in numbers.
template <bool kAccumulate>
static void multiply_terms(const Operand& a, int a_terms, const Operand& b, int b_terms, int rows, int columns,
                           int steps, float* c, int64_t c_stride) {
  const int64_t c_row = c_stride * 4;
  for (int n = 0; n < columns / kEdge; n += 2) {
    const bool two_columns = columns / kEdge - n > 1;
    Operand right = b;
    right.at += n * b.beside;
    for (int m = 0; m < rows / kEdge; m += 2) {
      const bool two_rows = rows / kEdge - m > 1;
      Operand left = a;
      left.at += m * a.beside;
      char* to = (char*)(c + m * kEdge * c_stride + n * kEdge);
      if (two_rows && two_columns) multiply_registers<2, 2, kAccumulate>(left, a_terms, right, b_terms, steps, to, c_row);
      else if (two_rows) multiply_registers<2, 1, kAccumulate>(left, a_terms, right, b_terms, steps, to, c_row);
      else if (two_columns) multiply_registers<1, 2, kAccumulate>(left, a_terms, right, b_terms, steps, to, c_row);
      else multiply_registers<1, 1, kAccumulate>(left, a_terms, right, b_terms, steps, to, c_row);
    }
  }
}

#else

// c [kRows, 16 kColumns] = or += the products of a and b, over `steps` times 32 of depth.
template <int kRows, int kColumns, bool kAccumulate>
static inline void multiply_registers(const Operand& a, const Operand& b, int steps, float* c, int64_t c_stride) {
  F sum[kRows][kColumns];
  for (int i = 0; i < kRows; i++) {
    for (int n = 0; n < kColumns; n++) sum[i][n] = kAccumulate ? load(c + i * c_stride + n * kEdge) : zero();
  }
  for (int s = 0; s < steps; s++) {
    const char *left = a.at + s * a.step, *right = b.at + s * b.step;
    for (int pair = 0; pair < kEdge; pair++) {
      __m512bh columns[kColumns];
      for (int n = 0; n < kColumns; n++) columns[n] = (__m512bh)_mm512_loadu_si512(right + n * b.beside + pair * b.row);
      for (int i = 0; i < kRows; i++) {
        int32_t both;
        __builtin_memcpy(&both, left + i * a.row + pair * 4, 4);
        const __m512bh row = (__m512bh)_mm512_set1_epi32(both);
        for (int n = 0; n < kColumns; n++) sum[i][n] = _mm512_dpbf16_ps(sum[i][n], row, columns[n]);
      }
    }
  }
  for (int i = 0; i < kRows; i++) {
    for (int n = 0; n < kColumns; n++) store(c + i * c_stride + n * kEdge, sum[i][n]);
  }
}

// c [rows, columns] in whole tile registers; c_stride in numbers. One term each.
template <bool kAccumulate>
static void multiply_terms(const Operand& a, int, const Operand& b, int, int rows, int columns, int steps, float* c,
                           int64_t c_stride) {
  constexpr int kRows = 8;
  for (int n = 0; n < columns / kEdge; n += 2) {
    Operand right = b;
    right.at += n * b.beside;
    for (int m = 0; m < rows; m += kRows) {
      Operand left = a;
      left.at += m / kEdge * a.beside + m % kEdge * a.row;
      float* to = c + m * c_stride + n * kEdge;
      if (columns / kEdge - n > 1) multiply_registers<kRows, 2, kAccumulate>(left, right, steps, to, c_stride);
      else multiply_registers<kRows, 1, kAccumulate>(left, right, steps, to, c_stride);
    }
  }
}

#endif

// Rows of K, split, and their scales. Returns whether all are finite.
static bool split_keys(const AttendArgs& args, MatrixTile& tile, const TileRows& all, int rows) {
  const int64_t term_size = (int64_t)kRowRegisters * tile.steps * kRegister;
  const RowKernels& kernels = kRowKernels[(int)all.key_storage];
  const int num_terms = terms_of(all.key_storage);
  F sum = zero();
  for (int d = 0; d < tile.depth; d += kLanes) store(tile.row + d, zero());
  for (int j = 0; j < rows; j++) {
    // Rows past the last repeat it: nothing reads their scores.
    const char* key = all.keys[j < all.count ? j : all.count - 1];
    char* to = tile.keys + (int64_t)(j / kEdge) * tile.steps * kRegister + j % kEdge * 64;
    if (tile.is_natural) {
      alignas(64) uint16_t row[kDepth];
      for (int s = 0; s < tile.steps; s++) {
        const int used = (int)min64(kDepth, args.head_dim - s * kDepth);
        if (used < kDepth) _mm512_storeu_si512(row, _mm512_setzero_si512());
        __builtin_memcpy(row, (const uint16_t*)key + s * kDepth, (size_t)used * 2);
        _mm512_storeu_si512(to + (int64_t)s * kRegister, _mm512_load_si512(row));
      }
      continue;  // what bf16 holds needs no splitting
    }
    tile.scales[j] = kernels.widen_codes(tile.row, key, args.head_dim);
    sum = fma(broadcast(tile.scales[j]), zero(), sum);
    for (int s = 0; s < tile.steps; s++) {
      const F a = load(tile.row + s * kDepth), b = load(tile.row + s * kDepth + kEdge);
      sum = fma(a, zero(), fma(b, zero(), sum));
      __m512i terms[kMostTerms];
      split_pairs(a, b, num_terms, terms);
      for (int t = 0; t < num_terms; t++) {
        _mm512_storeu_si512(to + t * term_size + (int64_t)s * kRegister, terms[t]);
      }
    }
  }
  return reduce_add(sum) == 0.0f;
}

// Whether rows of bf16 hold neither infinities nor NaN.
static bool are_finite(const char* const* rows, int count, int dim) {
  const __m512i exponent = _mm512_set1_epi16(0x7f80);
  __mmask32 special = 0;
  for (int j = 0; j < count; j++) {
    for (int d = 0; d < dim; d += kDepth) {
      const __mmask32 used = dim - d < kDepth ? (1u << (dim - d)) - 1 : 0xffffffffu;
      const __m512i row = _mm512_maskz_loadu_epi16(used, (const uint16_t*)rows[j] + d);
      special |= _mm512_cmpeq_epi16_mask(_mm512_and_si512(row, exponent), exponent);
    }
  }
  return special == 0;
}

// scores[j, m] = k[j] . q[m]; `even`: rows lie at one distance. `scores`: [128, 64].
static bool score_on_unit(const AttendArgs& args, MatrixTile& tile, const TileRows& all, bool even, int columns,
                          float* scores) {
  if (!tile.is_used || !tile.queries_split || !tile.takes(all.key_storage)) return false;
  // One term of q times an infinity is what it should be; a second term of zero would make it NaN.
  if (tile.is_natural && tile.query_terms > 1 && !are_finite(all.keys, all.count, args.head_dim)) return false;
  const int rows = whole(all.count, kEdge);
  const bool in_place = tile.is_natural && even && rows == all.count && tile.depth == args.head_dim;
  if (!in_place && !split_keys(args, tile, all, rows)) return false;
  Operand left = {tile.keys, (int64_t)kRowRegisters * tile.steps * kRegister, kRegister, (int64_t)tile.steps * kRegister, 64};
  if (in_place) left = {all.keys[0], 0, 64, kEdge * all.key_stride, all.key_stride};
  const Operand right = {tile.queries, (int64_t)tile.steps * kQueryRegisters * kRegister, kQueryRegisters * kRegister,
                         kRegister, 64};
  multiply_terms<false>(left, terms_of(all.key_storage), right, tile.query_terms, rows, whole(columns, kEdge), tile.steps,
                        scores, kMatrixColumns);
  for (int j = 0; is_quantized(all.key_storage) && j < all.count; j++) {
    float* row = scores + (int64_t)j * kMatrixColumns;
    for (int m = 0; m < columns; m += kLanes) store(row + m, mul(load(row + m), broadcast(tile.scales[j])));
  }
  return true;
}

// A pair of rows of V of bf16, which needs no splitting. Returns whether all are finite.
static bool pair_values(const uint16_t* first, const uint16_t* second, int dim, char* to) {
  const __m256i exponent = _mm256_set1_epi16(0x7f80);
  __mmask16 special = 0;
  for (int e = 0; e < dim; e += kLanes) {
    const __mmask16 used = dim - e < kLanes ? (__mmask16)((1u << (dim - e)) - 1) : (__mmask16)0xffff;
    const __m256i a = first ? _mm256_maskz_loadu_epi16(used, first + e) : _mm256_setzero_si256();
    const __m256i b = second ? _mm256_maskz_loadu_epi16(used, second + e) : _mm256_setzero_si256();
    special |= _mm256_cmpeq_epi16_mask(_mm256_and_si256(a, exponent), exponent);
    special |= _mm256_cmpeq_epi16_mask(_mm256_and_si256(b, exponent), exponent);
    const __m512i high = _mm512_slli_epi32(_mm512_cvtepu16_epi32(b), 16);
    _mm512_storeu_si512(to + (int64_t)e / kEdge * kRegister, _mm512_or_si512(high, _mm512_cvtepu16_epi32(a)));
  }
  return special == 0;
}

// A pair of rows of V as f32, split. Returns whether all are finite.
static bool split_value_pair(const MatrixTile& tile, const float* first, const float* second, int num_terms, char* to) {
  const int64_t term_size = (int64_t)kRowSteps * tile.value_registers * kRegister;
  F sum = zero();
  for (int e = 0; e < tile.width; e += kLanes) {
    const F a = load(first + e), b = load(second + e);
    sum = fma(a, zero(), fma(b, zero(), sum));
    __m512i terms[kMostTerms];
    split_pairs(a, b, num_terms, terms);
    for (int t = 0; t < num_terms; t++) {
      _mm512_storeu_si512(to + t * term_size + (int64_t)e / kEdge * kRegister, terms[t]);
    }
  }
  return reduce_add(sum) == 0.0f;
}

// Pairs of rows of V, zeros past the last, and their scales. Returns whether all are finite.
static bool split_values(const AttendArgs& args, MatrixTile& tile, const TileRows& all, int rows) {
  const RowKernels& kernels = kRowKernels[(int)all.value_storage];
  float *first = tile.row, *second = tile.row + tile.width;
  bool finite = true;
  const char* const* values = all.values;
  const int count = all.count;
  for (int j = 0; j < rows; j += 2) {
    const char *a = j < count ? values[j] : nullptr, *b = j + 1 < count ? values[j + 1] : nullptr;
    char* to = tile.values + (int64_t)(j / kDepth) * tile.value_registers * kRegister + j % kDepth * 32;
    if (all.value_storage == Storage::bf16) {
      finite &= pair_values((const uint16_t*)a, (const uint16_t*)b, args.value_dim, to);
      continue;
    }
    for (int e = 0; e < 2 * tile.width && (!a || !b); e += kLanes) store(first + e, zero());
    if (a) tile.scales[j] = kernels.widen_codes(first, a, args.value_dim);
    if (b) tile.scales[j + 1] = kernels.widen_codes(second, b, args.value_dim);
    finite &= (!a || __builtin_isfinite(tile.scales[j])) && (!b || __builtin_isfinite(tile.scales[j + 1]));
    finite &= split_value_pair(tile, first, second, terms_of(all.value_storage), to);
  }
  return finite;
}

// weights [128, 64] f32, times the scales of their rows where those are quantized, to [64, 128], split, zeros from row
// `count` to `rows`.
static void split_weights(MatrixTile& tile, const float* weights, Storage storage, int count, int rows, int columns) {
  const bool is_scaled = is_quantized(storage);
  const int num_terms = tile.weight_terms(storage);
  const int64_t term_size = (int64_t)kQueryRegisters * kRowSteps * kRegister;
  for (int j = 0; j < rows; j += kDepth) {
    for (int m = 0; m < columns; m += kLanes) {
      F terms[kMostTerms][kEdge];
      for (int pair = 0; pair < kEdge; pair++) {
        const int row = j + 2 * pair;
        const float* at = weights + (int64_t)row * kMatrixColumns + m;
        __m512i split[kMostTerms];
        F first = row < count ? load(at) : zero(), second = row + 1 < count ? load(at + kMatrixColumns) : zero();
        if (is_scaled && row < count) first = mul(first, broadcast(tile.scales[row]));
        if (is_scaled && row + 1 < count) second = mul(second, broadcast(tile.scales[row + 1]));
        split_pairs(first, second, num_terms, split);
        for (int t = 0; t < num_terms; t++) terms[t][pair] = _mm512_castsi512_ps(split[t]);
      }
      for (int t = 0; t < num_terms; t++) {
        transpose(terms[t]);
        char* to = tile.weights + t * term_size + (int64_t)(m / kEdge * kRowSteps + j / kDepth) * kRegister;
        for (int i = 0; i < kLanes; i++) store((float*)(to + i * 64), terms[t][i]);
      }
    }
  }
}

// out[m, e] += sum_j weights[j, m] v[j, e]; out: [64, E up to a whole vector].
static bool add_on_unit(const AttendArgs& args, MatrixTile& tile, const TileRows& all, const float* weights, int columns,
                        float* out) {
  if (!tile.is_used || !tile.takes_values(all.value_storage)) return false;
  const int rows = whole(all.count, kDepth), queries = whole(columns, kEdge);
  if (!split_values(args, tile, all, rows)) return false;
  split_weights(tile, weights, all.value_storage, all.count, rows, queries);
  const Operand left = {tile.weights, (int64_t)kQueryRegisters * kRowSteps * kRegister, kRegister, kRowSteps * kRegister, 64};
  const Operand right = {tile.values, (int64_t)kRowSteps * tile.value_registers * kRegister,
                         (int64_t)tile.value_registers * kRegister, kRegister, 64};
  multiply_terms<true>(left, tile.weight_terms(all.value_storage), right, terms_of(all.value_storage), queries, tile.width, rows / kDepth, out,
                       tile.width);
  return true;
}

#endif

}  // namespace KVASIR_ISA
}  // namespace kvasir

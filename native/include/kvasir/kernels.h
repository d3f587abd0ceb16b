// The kernels' interface: raw pointers, memory owned by the caller, no Node, no threads, no allocation, no errors but
// return values. One table of functions per instruction set; a host picks one and spreads tasks over its threads.
//
// Letters: T new tokens, H query heads, K KV heads, G = H / K, D query/key head dim, E value head dim, C rows of storage
// a head, W keep window. Arrays are row-major.
#pragma once
#include <stddef.h>
#include <stdint.h>

namespace kvasir {

constexpr int32_t kNever = 0x7fffffff;

enum class Storage : int32_t { f32 = 0, f16 = 1, bf16 = 2, int8 = 3, e4m3 = 4, e5m2 = 5, int4 = 6 };
constexpr int kLastFloat = 2, kLastStorage = 6;

// Quantized rows are runs of bytes: codes, zeros up to a multiple of four bytes, and the scale as f32. Of int4, byte i
// holds code i in its low half and code i + (dim + 1) / 2 in its high half, both plus 8.
constexpr bool is_quantized(Storage storage) { return (int32_t)storage > kLastFloat; }
constexpr int64_t scale_offset(Storage storage, int64_t dim) {
  return ((storage == Storage::int4 ? (dim + 1) / 2 : dim) + 3) / 4 * 4;
}
constexpr int64_t row_bytes(Storage storage, int64_t dim) {
  return is_quantized(storage) ? scale_offset(storage, dim) + 4 : storage == Storage::f32 ? 4 * dim : 2 * dim;
}

// How bindings are told where rows lie: [K, C, D], [C, K, D], or [C, D] for all heads together.
enum Layout { kHeadMajor = 0, kTokenMajor = 1, kShared = 2 };

constexpr int kMaxSegments = 4;

// Added to (f32) or allowed in (bytes: 0 hides) each logit: element values[h * head_stride + t * token_stride + j].
struct LogitMask {
  const void* values;  // null: none
  int32_t is_bytes;
  int64_t head_stride, token_stride;
};

// A run of stored tokens. Strides in bytes.
struct Segment {
  const char* keys;
  const char* values;
  Storage key_storage, value_storage;
  int64_t key_head_stride, key_row_stride;
  int64_t value_head_stride, value_row_stride;
  int64_t capacity;          // C
  int64_t num_rows;          // of storage that a head may use: rows and pages that point past them are passed over
  const int32_t* lengths;    // [K]
  const float* bias;         // [K, C] or null
  const int32_t* births;     // [K, C] or null
  const int32_t* deaths;     // [K, C] or null
  const int32_t* rows;       // [K, C] or null: entry j stands for row rows[k, j]
  const int32_t* pages;      // or null: entry j is row j % page_size of page pages[k * pages_stride + j / page_size]
  int64_t page_size, pages_stride;
  int32_t has_positions;     // by `positions`, else row j is at first_position + j
  int64_t first_position;
  const int32_t* positions;  // [K, C] or null
  LogitMask mask;
};

// cos and sin [T, R]; null: no rotation.
struct Rotation {
  const float* cos;
  const float* sin;
  int32_t rotary_pairs, is_interleaved;
};

struct AttendArgs {
  const void* query;  // [T, H, D]
  void* output;       // [T, H, E]
  Storage query_storage;  // of query and output
  float* lse;  // [T, H] or null
  float* logits;  // [T, H, C] of the only segment, by entry, or null
  int32_t num_tokens, num_heads, num_kv_heads, head_dim, value_dim;
  float scale;
  int32_t first_position;
  int32_t left, right, sinks;  // kNever: no limit
  float softcap;               // 0: none
  const float* alibi_slopes;   // [H] or null
  const float* sink_logits;    // [H] or null
  Rotation rotation;           // of the queries
  int32_t is_transformed;      // K and V are stored transformed (Hadamard)
  const Segment* segments;
  int32_t num_segments;
};

// How a call is cut into tasks that may run in any order on any thread. Partial results lie in `partials`; when
// `merge` puts them together afterwards, in the order of splits, whatever thread made them.
struct AttendPlan {
  int32_t is_tiled;     // 1: query tiles over matrix products; 0: one query at a time, split over keys
  int32_t tile_tokens;  // queries a tile (tiled)
  int32_t num_tiles;
  int32_t num_parts, part_heads;  // of a group, for groups wider than a tile (tiled)
  int32_t num_splits;
  int64_t rows_per_split;
  int64_t num_tasks;
  int64_t partial_bytes;    // one block for the call
  int64_t workspace_bytes;  // one block for each thread
};

// Adds to `masses` what attention each stored row got: exp(logit - lse) over tokens from `first_token` on and the G query
// heads of its KV head.
struct WeighArgs {
  AttendArgs attend;  // of a finished call; its output is not touched
  const float* lse;   // [T, H]
  float* masses[4];   // of each segment [K, C], by the index that `bias` has
  int32_t first_token;
};

struct WeighPlan {
  int32_t tasks_per_head;
  int32_t num_tasks;
  int64_t workspace_bytes;  // one block for each thread
};

struct StoreArgs {
  const float* source;  // [T, K, D]
  char* target;
  int64_t head_stride, row_stride;  // of the target, in bytes
  int32_t num_kv_heads, head_dim;
  const int32_t* counts;  // [K]
  const int32_t* tokens;  // [K, stride]
  const int32_t* slots;   // [K, stride]
  int64_t stride;
  Storage storage;
  Rotation rotation;
  int32_t is_transformed;  // rows are transformed (Hadamard) after their rotation
};

// Row rows[n] of `target` becomes row rows[n] of `source`, rotated by the angles of token turns[n].
struct TurnArgs {
  const char* source;
  char* target;
  Storage storage;  // of both: [C, D]
  int32_t head_dim;
  int64_t count;
  const int32_t* rows;
  const int32_t* turns;
  Rotation rotation;
  int32_t is_transformed;  // rows are stored transformed (Hadamard)
};

struct RotateArgs {
  float* vectors;  // [T, heads, D]
  int32_t num_tokens, num_heads, head_dim, is_inverse;
  Rotation rotation;
};

struct RetainArgs {
  int32_t num_kv_heads, window, sinks, recent;
  float* kept_scores;      // [K, W]
  double* kept_positions;  // [K, W]
  int32_t* lengths;        // [K]
  int32_t* heap;           // [K, W]
  int32_t* heap_lengths;   // [K]
  double* accepted;        // [K]
  int32_t* ring;           // [K, recent]
  const float* scores;     // [T, K]
  int32_t num_tokens;
  double first_position;
  int32_t* row_deaths;    // [K, W] or null
  int32_t* token_deaths;  // [K, T]
  int32_t* counts;        // [K]
  int32_t* tokens;        // [K, min(T, W)]
  int32_t* slots;         // [K, min(T, W)]
  double* left_positions;  // [K, min(T, W)] or null: of the token that had the slot, NaN where none had
  float* left_scores;      // [K, min(T, W)] or null
};

struct SelectArgs {
  const float* scores;  // [K, C]
  int64_t capacity;
  int32_t num_rows, window;
  int32_t* rows;     // [K, C]
  int32_t* lengths;  // [K]
};

// The `most` rows of bounds of each KV head that score highest for any of its G queries, by (score, row). A row is the
// greatest and then the least number of each dim; its score is bias and the sum over dims of what scale * q makes of the
// greatest where that is positive and of the least elsewhere. Rows of -infinity or NaN are passed over.
struct SeekArgs {
  const float* query;  // [H, D]
  const char* bounds;  // [K, C, 2 D]
  Storage storage;
  const float* bias;   // [K, C]
  int32_t num_heads, num_kv_heads, head_dim;
  float scale;
  int64_t capacity, num_rows;  // C, and how many of them are looked at
  int32_t most;
  int32_t* rows;     // [K, most], ascending
  int32_t* lengths;  // [K]
};

// As AttendPlan: tasks in any order, then `merge`.
struct SeekPlan {
  int32_t num_splits, split_rows, split_most;
  int64_t num_tasks;
  int64_t partial_bytes, workspace_bytes;
};

enum class Status : int32_t { ok = 0, nan_score = 1, corrupt_state = 2 };

// What depends on the instruction set.
struct KernelTable {
  const char* name;
  void (*attend_plan)(const AttendArgs&, AttendPlan*);
  void (*attend_task)(const AttendArgs&, const AttendPlan&, int task, char* partials, char* workspace);
  void (*attend_merge)(const AttendArgs&, const AttendPlan&, char* partials, char* workspace);
  void (*weigh_plan)(const WeighArgs&, WeighPlan*);
  void (*weigh_task)(const WeighArgs&, const WeighPlan&, int task, char* workspace);
  // `workspace`: head_dim floats, where rows are rotated and transformed.
  void (*store)(const StoreArgs&, char* workspace);
  // Rows `from` to `to` - 1 of the list. `workspace`: head_dim floats and a vector.
  void (*turn)(const TurnArgs&, int64_t from, int64_t to, char* workspace);
  void (*rotate)(const RotateArgs&);
  void (*seek_plan)(const SeekArgs&, SeekPlan*);
  void (*seek_task)(const SeekArgs&, const SeekPlan&, int task, char* partials, char* workspace);
  void (*seek_merge)(const SeekArgs&, const SeekPlan&, char* partials);
  // Reads `count` floats and returns something of them: what memory gives at best.
  float (*read)(const float* data, int64_t count);
  // Does `iterations` rounds of independent fused multiply-adds; *flops says how many operations that was.
  float (*multiply_add)(int64_t iterations, double* flops);
  // Does `iterations` rounds of the multiply-adds of f32, or of the bf16 dot products, that products of tiles are made
  // of: the same number of instructions for all sets.
  float (*dot_products)(int64_t iterations);
};

// Checks scores of all heads for NaN; then `retain_head` may run for each head, in any order.
Status retain_check(const RetainArgs&);
Status retain_head(const RetainArgs&, int head);
// `workspace`: num_rows * 8 bytes.
void select_head(const SelectArgs&, int head, char* workspace);

}  // namespace kvasir

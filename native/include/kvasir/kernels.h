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
// Rows are looked at in blocks of this many: K and V of a block fit in the first-level cache, with those of the next.
constexpr int kBlockRows = 32;

enum class Storage : int32_t { f32 = 0, f16 = 1 };

// A run of stored tokens. Strides in elements.
struct Segment {
  const void* keys;
  const void* values;
  int64_t key_head_stride, key_row_stride;
  int64_t value_head_stride, value_row_stride;
  int64_t capacity;         // C
  const int32_t* lengths;   // [K]
  const float* bias;        // [K, C] or null
  const int32_t* births;    // [K, C] or null
  const int32_t* deaths;    // [K, C] or null
  const int32_t* rows;      // [K, C] or null: entry j stands for row rows[k, j]
};

struct AttendArgs {
  const float* query;  // [T, H, D]
  float* output;       // [T, H, E]
  float* lse;          // [T, H] or null
  int32_t num_tokens, num_heads, num_kv_heads, head_dim, value_dim;
  float scale;
  int32_t first_position;
  Storage storage;
  const Segment* segments;
  int32_t num_segments;
};

// How a call is cut into tasks that may run in any order on any thread. Partial results lie in `partials`; when
// num_splits > 1 `merge` puts them together afterwards, in the order of splits, whatever thread made them.
struct AttendPlan {
  int32_t is_tiled;     // 1: query tiles over matrix products; 0: one query at a time, split over keys
  int32_t tile_tokens;  // queries a tile (tiled)
  int32_t num_tiles;
  int32_t num_splits;
  int64_t rows_per_split;
  int32_t num_tasks;
  int64_t partial_bytes;    // one block for the call
  int64_t workspace_bytes;  // one block for each thread
};

struct StoreArgs {
  const float* source;  // [T, K, D]
  void* target;         // [K, C, D]
  int32_t num_kv_heads, head_dim;
  int64_t capacity;
  const int32_t* counts;  // [K]
  const int32_t* tokens;  // [K, stride]
  const int32_t* slots;   // [K, stride]
  int64_t stride;
  Storage storage;
};

struct RotateArgs {
  float* vectors;    // [T, heads, D]
  const float* cos;  // [T, R]
  const float* sin;  // [T, R]
  int32_t num_tokens, num_heads, head_dim, rotary_pairs;
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
};

struct SelectArgs {
  const float* scores;  // [K, C]
  int64_t capacity;
  int32_t num_rows, window;
  int32_t* rows;     // [K, C]
  int32_t* lengths;  // [K]
};

enum class Status : int32_t { ok = 0, nan_score = 1, corrupt_state = 2 };

// What depends on the instruction set.
struct KernelTable {
  const char* name;
  void (*attend_plan)(const AttendArgs&, int num_threads, AttendPlan*);
  void (*attend_task)(const AttendArgs&, const AttendPlan&, int task, char* partials, char* workspace);
  void (*attend_merge)(const AttendArgs&, const AttendPlan&, const char* partials);
  void (*store)(const StoreArgs&);
  void (*rotate)(const RotateArgs&);
  // Reads `count` floats and returns something of them: what memory gives at best.
  float (*read)(const float* data, int64_t count);
  // Does `iterations` rounds of independent fused multiply-adds; *flops says how many operations that was.
  float (*multiply_add)(int64_t iterations, double* flops);
};

// Checks scores of all heads for NaN; then `retain_head` may run for each head, in any order.
Status retain_check(const RetainArgs&);
Status retain_head(const RetainArgs&, int head);
// `workspace`: num_rows * 8 bytes.
void select_head(const SelectArgs&, int head, char* workspace);

}  // namespace kvasir

// The rows of bounds that score highest for the queries of their head. Blocks of rows are scored as keys are for
// attention, or on the matrix unit; each task keeps the best of its own rows while they go by, so that scores are never
// written down.
#pragma once
#include "best_rows.h"
#include "seek_tiles.h"

namespace kvasir {
namespace KVASIR_ISA {

constexpr int64_t kSoughtRows = 1536;  // of a task at most: packing the queries anew costs as much as a few of them

struct Seek {
  float* q;  // [places, padded 2 D]: what is positive of the queries, then what is negative, scaled; zeros from G on
  PackedQueries packed;
  TileQueries tiles;
  float* scores;   // [kMostHeads, kBlockRows]
  float* highest;  // [kBlockRows]: of all heads

  static int64_t place(const SeekArgs& args, char* base, Seek* seek) {
    Arena arena{base};
    const int group = args.num_heads / args.num_kv_heads, dim = 2 * args.head_dim;
    Seek placed;
    placed.q = arena.take<float>((int64_t)head_places(group) * padded(dim));
    if (TileQueries::takes(args.storage, dim)) placed.tiles.place(arena, group, dim);
    else placed.packed = PackedQueries::over(placed.q, arena.take<char>(PackedQueries::bytes(group, dim)), group, dim);
    placed.scores = arena.take<float>(kMostHeads * kBlockRows);
    placed.highest = arena.take<float>(kBlockRows);
    if (seek) *seek = placed;
    return arena.used;
  }
};

static void seek_plan(const SeekArgs& args, SeekPlan* plan) {
  plan->num_splits = (int32_t)((args.num_rows + kSoughtRows - 1) / kSoughtRows);
  const int64_t even = plan->num_splits ? (args.num_rows + plan->num_splits - 1) / plan->num_splits : 0;
  plan->split_rows = (int32_t)((even + kBlockRows - 1) / kBlockRows * kBlockRows);
  plan->split_most = (int32_t)min64(args.most, plan->split_rows);
  plan->num_tasks = (int64_t)plan->num_splits * args.num_kv_heads;
  // Each task's count and keys, then those of a head.
  plan->partial_bytes = 8 * (plan->num_tasks * (plan->split_most + 1) + min64(args.most, args.num_rows));
  plan->workspace_bytes = Seek::place(args, nullptr, nullptr);
}

static void load_queries(const SeekArgs& args, int head, Seek* seek) {
  const int group = args.num_heads / args.num_kv_heads, D = args.head_dim;
  const int64_t stride = padded(2 * D);
  __builtin_memset(seek->q, 0, 4 * head_places(group) * stride);
  for (int g = 0; g < group; g++) {
    const float* query = args.query + ((int64_t)head * group + g) * D;
    float *positive = seek->q + g * stride, *negative = positive + D;
    for (int d = 0; d < D; d++) {
      const float value = query[d] * args.scale;
      positive[d] = value > 0.0f ? value : 0.0f;
      negative[d] = value > 0.0f ? 0.0f : value;
    }
  }
  if (TileQueries::takes(args.storage, 2 * D)) seek->tiles.pack(seek->q, group, 2 * D);
}

// The block of `count` rows from `first` on; what is asked for ahead is the block that follows. Pointers go on with those
// of the last row.
static void point_at(const char* first, int64_t stride, int64_t count, DecodeRows* rows) {
  rows->count = (int)min64(count, kBlockRows);
  for (int j = 0; j < kBlockRows; j++) {
    rows->keys[j] = first + min64(j, rows->count - 1) * stride;
    rows->values[j] = first + min64(j + kBlockRows, count - 1) * stride;
  }
}

// The highest score of each of `count` rows, of which the first 64 count. NaN is lower than any number.
static void score_bounds(const SeekArgs& args, const char* first, int64_t count, Seek* seek) {
  const int group = args.num_heads / args.num_kv_heads, dim = 2 * args.head_dim;
  for (int j = 0; j < kBlockRows; j++) seek->highest[j] = -__builtin_inff();
  if (TileQueries::takes(args.storage, dim)) {
    score_tiles(seek->tiles, first, min64(count, kBlockRows), group, dim, seek->highest);
    return;
  }
  const RowKernels& kernels = kRowKernels[(int)args.storage];
  DecodeRows rows;
  point_at(first, row_bytes(args.storage, dim), count, &rows);
  for (int first_head = 0, log; first_head < group; first_head += 1 << log) {
    log = log_heads(group - first_head, args.storage);
    const PackedQuery queries = seek->packed.from(first_head, log, args.storage);
    kernels.score[log][first_head == 0](rows, queries, dim, seek->scores);
    for (int g = 0; g < 1 << log && first_head + g < group; g++) {
      const float* scores = seek->scores + g * kBlockRows;
      float* highest = seek->highest;
      for (int j = 0; j < kBlockRows; j++) highest[j] = scores[j] > highest[j] ? scores[j] : highest[j];
    }
  }
}

// Scores become those with bias. Mostly none of a block is among the best, which is seen of all at once.
static void offer_block(float* scores, const float* bias, int count, uint32_t first, BestRows* best) {
  const float floor = best->floor();
  int reaches = 0;
  for (int j = 0; j < count; j++) {
    scores[j] += bias[j];
    reaches |= scores[j] >= floor;
  }
  if (!reaches) return;
  for (int j = 0; j < count; j++) {
    if (scores[j] > -__builtin_inff()) best->offer(key_of(scores[j], first + (uint32_t)j));
  }
}

static void seek_task(const SeekArgs& args, const SeekPlan& plan, int task, char* partials, char* workspace) {
  const int head = task / plan.num_splits;
  const int64_t begin = (int64_t)(task % plan.num_splits) * plan.split_rows;
  const int64_t end = min64(args.num_rows, begin + plan.split_rows);
  const int64_t stride = row_bytes(args.storage, 2 * args.head_dim);
  const char* bounds = args.bounds + head * args.capacity * stride;
  const float* bias = args.bias + head * args.capacity;
  uint64_t* own = (uint64_t*)partials + (int64_t)task * (plan.split_most + 1);
  BestRows best = {own + 1, plan.split_most, 0};
  const MatrixUnit unit;
  (void)unit;
  Seek seek;
  Seek::place(args, workspace, &seek);
  load_queries(args, head, &seek);
  for (int64_t first = begin; first < end; first += kBlockRows) {
    score_bounds(args, bounds + first * stride, end - first, &seek);
    const int count = (int)min64(kBlockRows, end - first);
    offer_block(seek.highest, bias + first, count, (uint32_t)first, &best);
  }
  own[0] = (uint64_t)best.count;
}

static void seek_merge(const SeekArgs& args, const SeekPlan& plan, char* partials) {
  const uint64_t* own = (const uint64_t*)partials;
  uint64_t* keys = (uint64_t*)partials + plan.num_tasks * (plan.split_most + 1);
  for (int head = 0; head < args.num_kv_heads; head++) {
    BestRows best = {keys, min64(args.most, args.num_rows), 0};
    for (int s = 0; s < plan.num_splits; s++, own += plan.split_most + 1) {
      for (uint64_t i = 0; i < own[0]; i++) best.offer(own[1 + i]);
    }
    args.lengths[head] = best.take_rows(args.rows + (int64_t)head * args.most);
  }
}

}  // namespace KVASIR_ISA
}  // namespace kvasir

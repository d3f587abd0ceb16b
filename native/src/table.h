// The table of one instruction set. Included once by each kernels_<isa>.cc, which is compiled with that set's flags;
// nothing here may include standard library templates, whose instances the linker would share between sets.
#pragma once
#include "attend_decode.h"
#include "attend_tile.h"
#include "elementwise.h"
#include "seek.h"
#include "weigh.h"

#define KVASIR_STRING_(x) #x
#define KVASIR_STRING(x) KVASIR_STRING_(x)

namespace kvasir {
namespace KVASIR_ISA {

// A group wider than a tile is cut into parts of about the same number of heads.
static void plan_tiles(const AttendArgs& args, AttendPlan* plan) {
  const int group = args.num_heads / args.num_kv_heads;
  plan->is_tiled = 1;
  plan->num_parts = (group - 1) / kStripQueries + 1;
  plan->part_heads = (group - 1) / plan->num_parts + 1;
  const int64_t tokens = kStripQueries / plan->part_heads, strips = (args.num_tokens - 1) / tokens + 1;
  const int count = Tile::strips_of(args, strips * args.num_kv_heads * plan->num_parts);
  plan->tile_tokens = (int32_t)(tokens * count);
  plan->num_tiles = (args.num_tokens - 1) / plan->tile_tokens + 1;
  plan->num_tasks = (int64_t)plan->num_tiles * args.num_kv_heads * plan->num_parts;
  Tile tile;
  plan->workspace_bytes = tile.place(args, count, nullptr);
}

// Fewer rows a task than this and starting it costs more than it saves; more splits than that and merging them does.
constexpr int64_t kLeastRowsPerSplit = 512, kMostSplits = 16;

// Splits follow from the longest head alone, not from threads or batch: so does every bit of the result.
static void plan_splits(const AttendArgs& args, AttendPlan* plan) {
  int64_t longest = 1;
  for (int k = 0; k < args.num_kv_heads; k++) {
    int64_t rows = 0;
    for (int s = 0; s < args.num_segments; s++) rows += args.segments[s].lengths[k];
    longest = max64(longest, rows);
  }
  const int64_t rows = max64(kLeastRowsPerSplit, (longest + kMostSplits - 1) / kMostSplits);
  plan->rows_per_split = (rows + kBlockRows - 1) / kBlockRows * kBlockRows;
  plan->num_splits = (int32_t)((longest + plan->rows_per_split - 1) / plan->rows_per_split);
  plan->num_tasks = (int64_t)args.num_tokens * args.num_kv_heads * plan->num_splits;
  plan->partial_bytes =
      4 * plan->num_tasks * Partial::floats(args.num_heads / args.num_kv_heads, args.value_dim);
  plan->workspace_bytes = Decode::place(args, nullptr, nullptr);
}

static void attend_plan(const AttendArgs& args, AttendPlan* plan) {
  const int64_t group = args.num_heads / args.num_kv_heads;
  *plan = AttendPlan{};
  // A tile pays once its columns fill a vector or two.
  // Tiles don't keep logits.
  if (args.num_tokens > 1 && args.num_tokens * group >= 8 && !args.logits) plan_tiles(args, plan);
  else plan_splits(args, plan);
}

static void attend_task(const AttendArgs& args, const AttendPlan& plan, int task, char* partials, char* workspace) {
  if (plan.is_tiled) tile_task(args, plan, task, workspace);
  else decode_task(args, plan, task, partials, workspace);
}

static void attend_merge(const AttendArgs& args, const AttendPlan& plan, char* partials, char* workspace) {
  if (!plan.is_tiled) decode_merge(args, plan, partials, workspace);
}

extern const KernelTable table = {
    KVASIR_STRING(KVASIR_ISA), attend_plan, attend_task, attend_merge, weigh_plan, weigh_task, store_rows, turn_rows,
    rotate, seek_plan, seek_task, seek_merge, read_all, multiply_add, dot_products,
};

}  // namespace KVASIR_ISA
}  // namespace kvasir

// How much attention each stored row got: for the queries of a finished attend, the sum of exp(logit - lse) over query
// tokens and the G query heads of a KV head. A pass of its own, since attend itself never holds a whole row of weights.
//
// A task is a KV head and a range of its entries, so no two tasks write the same number and the order of additions does
// not depend on threads.
#pragma once
#include "logits.h"
#include "packed_query.h"

namespace kvasir {
namespace KVASIR_ISA {

constexpr int64_t kWeighRows = 512;  // entries a task: loading the queries anew costs 1/512 of the products

struct Weigh {
  float* q;       // [places, padded D], turned and scaled; zeros from G on
  PackedQueries packed;
  float* scores;  // [kMostHeads, kBlockRows]

  static int64_t place(const AttendArgs& args, char* base, Weigh* weigh) {
    Arena arena{base};
    const int group = args.num_heads / args.num_kv_heads;
    float* q = arena.take<float>((int64_t)head_places(group) * padded(args.head_dim));
    char* packed = arena.take<char>(PackedQueries::bytes(group, args.head_dim));
    float* scores = arena.take<float>(kMostHeads * kBlockRows);
    if (weigh) *weigh = Weigh{q, PackedQueries::over(q, packed, group, args.head_dim), scores};
    return arena.used;
  }
};

static void weigh_plan(const WeighArgs& args, WeighPlan* plan) {
  int64_t longest = 0;
  for (int k = 0; k < args.attend.num_kv_heads; k++) {
    int64_t rows = 0;
    for (int s = 0; s < args.attend.num_segments; s++) rows += args.attend.segments[s].lengths[k];
    longest = max64(longest, rows);
  }
  plan->tasks_per_head = (int32_t)((longest + kWeighRows - 1) / kWeighRows);
  plan->num_tasks = plan->tasks_per_head * args.attend.num_kv_heads;
  plan->workspace_bytes = Weigh::place(args.attend, nullptr, nullptr);
}

// Soft cap, ALiBi and mask of the scores of one head, bias added, then weights in place.
static void weigh_scores(const WeighArgs& args, const DecodeRows& rows, int token, int head, float* scores) {
  const AttendArgs& attend = args.attend;
  const float lse = args.lse[(int64_t)token * attend.num_heads + head];
  if (attend.softcap > 0) {
    for (int j = 0; j < kBlockRows; j += kLanes) store(scores + j, soft_capped(load(scores + j), attend.softcap));
  }
  const int32_t position = attend.first_position + token;
  for (int j = 0; j < rows.count; j++) {
    float score = scores[j];
    if (attend.alibi_slopes) score -= attend.alibi_slopes[head] * distance(position, rows.positions[j]);
    if (rows.mask) score = masked(score, mask_at(*rows.mask, head, token, rows.entries[j]));
    scores[j] = rows.has_bias ? score + rows.bias[j] : score;
  }
  for (int j = rows.count; j < kBlockRows; j++) scores[j] = -__builtin_inff();
  // A query that sees nothing has no weights; its lse of -infinity must not meet a logit of -infinity.
  const F reference = broadcast(lse == -__builtin_inff() ? 0.0f : lse);
  for (int j = 0; j < kBlockRows; j += kLanes) store(scores + j, exp_nonpositive(sub(load(scores + j), reference)));
}

// One block of rows for 2^log_count query heads from `first` of the group on, as far as there are so many.
static void weigh_heads(const WeighArgs& args, Weigh& weigh, const DecodeRows& rows, int token, int head,
                        int first, int log_count, float* weights) {
  const AttendArgs& attend = args.attend;
  const int group = attend.num_heads / attend.num_kv_heads;
  kRowKernels[(int)rows.key_storage].score[log_count][0](rows, weigh.packed.from(first, log_count, rows.key_storage),
                                                         attend.head_dim, weigh.scores);
  for (int g = 0; g < 1 << log_count && first + g < group; g++) {
    float* scores = weigh.scores + g * kBlockRows;
    weigh_scores(args, rows, token, head * group + first + g, scores);
    for (int j = 0; j < rows.count; j++) weights[j] += scores[j];
  }
}

// Adds the weights of a block to the masses of its rows.
static void add_masses(const Segment& segment, int head, const DecodeRows& rows, const float* weights, float* mass) {
  const int64_t base = head * segment.capacity;
  for (int i = 0; i < rows.count; i++) {
    const int64_t entry = rows.entries[i];
    mass[base + (segment.rows ? segment.rows[base + entry] : entry)] += weights[i];
  }
}

static void weigh_block(const WeighArgs& args, Weigh& weigh, int s, int head, int token, int64_t begin,
                        int64_t end) {
  const AttendArgs& attend = args.attend;
  const Segment& segment = attend.segments[s];
  const int group = attend.num_heads / attend.num_kv_heads;
  const int32_t position = attend.first_position + token;
  Sight sight(attend, position, position);
  sight.wants_entries = true;
  DecodeRows rows;
  rows.clear();
  rows.gather(segment, head, begin, end, sight);
  if (rows.count == 0) return;
  float weights[kBlockRows] = {0};
  for (int first = 0, log; first < group; first += 1 << log) {
    log = log_heads(group - first, rows.key_storage);
    weigh_heads(args, weigh, rows, token, head, first, log, weights);
  }
  add_masses(segment, head, rows, weights, args.masses[s]);
}

// From the logits that `attend` kept: no products.
static void weigh_kept(const WeighArgs& args, int head, int64_t from) {
  const AttendArgs& attend = args.attend;
  const Segment& segment = attend.segments[0];
  const int group = attend.num_heads / attend.num_kv_heads;
  const int64_t base = head * segment.capacity, end = min64(segment.lengths[head], from + kWeighRows);
  for (int64_t j = from; j < end; j += kLanes) {
    const int count = (int)min64(kLanes, end - j);
    F sum = zero();
    for (int token = args.first_token; token < attend.num_tokens; token++) {
      for (int g = 0; g < group; g++) {
        const int64_t row = (int64_t)token * attend.num_heads + head * group + g;
        const float lse = args.lse[row];
        if (lse == -__builtin_inff()) continue;
        const float* logits = attend.logits + row * segment.capacity + j;
        const F logit = count == kLanes ? load(logits) : load_part(logits, count);
        sum = add(sum, exp_nonpositive(sub(logit, broadcast(lse))));
      }
    }
    float weights[kLanes];
    store(weights, sum);
    for (int i = 0; i < count; i++) {
      args.masses[0][base + (segment.rows ? segment.rows[base + j + i] : j + i)] += weights[i];
    }
  }
}

static void weigh_task(const WeighArgs& args, const WeighPlan& plan, int task, char* workspace) {
  const AttendArgs& attend = args.attend;
  const int head = task / plan.tasks_per_head, group = attend.num_heads / attend.num_kv_heads;
  const int64_t from = (int64_t)(task % plan.tasks_per_head) * kWeighRows;
  if (attend.logits) return weigh_kept(args, head, from);
  const MatrixUnit unit(wants_registers(attend));
  (void)unit;
  Weigh weigh;
  Weigh::place(attend, workspace, &weigh);
  clear_idle_queries(weigh.q, group, attend.head_dim);
  for (int token = args.first_token; token < attend.num_tokens; token++) {
    for (int g = 0; g < group; g++) {
      float* q = weigh.q + (int64_t)g * padded(attend.head_dim);
      load_query(attend, token, head * group + g, q);
      for (int d = 0; d < attend.head_dim; d++) q[d] *= attend.scale;
    }
    weigh.packed.storage = -1;  // another token's
    int64_t start = 0;  // of the segment, among the head's entries
    for (int s = 0; s < attend.num_segments; s++) {
      const int64_t length = attend.segments[s].lengths[head], end = min64(length, from + kWeighRows - start);
      for (int64_t j = max64(0, from - start); j < end; j += kBlockRows) {
        weigh_block(args, weigh, s, head, token, j, min64(end, j + kBlockRows));
      }
      start += length;
    }
  }
}

}  // namespace KVASIR_ISA
}  // namespace kvasir
